//! The meaning of an answer as a whole: for items without a row, and for answers without rows.

use super::response::BackendResponse;
use super::rules::ItemRules;
use crate::idempotency::outcome::{OutcomeRules, Verdict};
use crate::json::{Document, JsonType};
use crate::matcher::{self, MatchBody, MatchInput, Matcher, ParsedBody, StatusPattern};

/// An answer as a whole.
pub(super) struct WholeAnswer<'r, 'd, 'a> {
    pub(super) rules: &'r ItemRules,
    pub(super) outcome: &'r OutcomeRules,
    pub(super) response: BackendResponse<'a>,
    /// The body; `None`: the body is not JSON, is cut off, or names a member twice.
    pub(super) document: Option<&'d Document<'a>>,
    /// The body as text.
    text: ParsedBody<'a>,
}

impl<'r, 'd, 'a> WholeAnswer<'r, 'd, 'a> {
    pub(super) fn new(
        rules: &'r ItemRules,
        outcome: &'r OutcomeRules,
        response: BackendResponse<'a>,
        document: Option<&'d Document<'a>>,
    ) -> Self {
        Self { rules, outcome, response, document, text: ParsedBody::new(response.body) }
    }

    /// The verdict on an answer without rows, by `[route.outcome]`.
    pub(super) fn verdict(&self) -> Verdict {
        self.outcome.judge(&self.input()).verdict
    }

    /// Reports whether an answer without rows proves that nothing was issued: by `[route.outcome]`,
    /// or by `not_issued` under a trusted status. A 5xx without rows is not proof, because a proxy
    /// in between may have sent the status.
    pub(super) fn refused(&self) -> bool {
        if self.declares_unknown() {
            return false;
        }
        match self.verdict() {
            // JSON that is cut off or ambiguous may hold rows, and rows come under any status.
            Verdict::Released => self.document.is_some() || !starts_as_json(self.response.body),
            Verdict::Final | Verdict::Unknown | Verdict::Pending => self
                .holds(&self.rules.response.not_issued, |matcher| {
                    self.is_structured() || matcher.contains.is_some()
                }),
        }
    }

    /// Reports whether the answer proves that items without a row were issued. JSON that is cut off
    /// or ambiguous may hold rows.
    pub(super) fn all_issued(&self) -> bool {
        let is_readable = self.document.is_some() || !starts_as_json(self.response.body);
        let all_issued = &self.rules.response.all_issued;
        is_readable && !self.declares_unknown() && self.holds(all_issued, |_| true)
    }

    /// Reports an array of errors that proves that nothing was issued: as an answer without rows,
    /// or because nobody acts for a caller who is refused.
    pub(super) fn denied(&self) -> bool {
        let caller_is_refused =
            matches!(self.response.status, 401 | 403) && self.verdict() == Verdict::Final;
        self.refused() || caller_is_refused && !self.declares_unknown()
    }

    /// Reports an answer that declares its outcome unknown.
    fn declares_unknown(&self) -> bool {
        self.is_structured() && matcher::any(&self.rules.response.unknown, &self.input())
    }

    fn is_structured(&self) -> bool {
        let kind = self.document.map(|document| document.root().kind());
        matches!(kind, Some(JsonType::Object | JsonType::Array))
    }

    /// Reports whether a matcher of the list holds that `proves` something about this answer. Under
    /// a status that leaves the outcome unknown, the matcher has to name this very status.
    fn holds(&self, list: &[Matcher], proves: impl Fn(&Matcher) -> bool) -> bool {
        let needs_status = matches!(self.verdict(), Verdict::Unknown | Verdict::Pending);
        let input = self.input();
        list.iter().any(|matcher| {
            let names_status = matches!(matcher.status, Some(StatusPattern::Exact(_)));
            (!needs_status || names_status) && proves(matcher) && matcher.matches(&input)
        })
    }

    fn input(&self) -> MatchInput<'_, 'a> {
        let BackendResponse { status, headers, body } = self.response;
        let body = match self.document {
            Some(document) => MatchBody::Value(document.root()),
            None if starts_as_json(body) => MatchBody::Unseen,
            None => MatchBody::Whole(&self.text),
        };
        MatchInput::answer(status, headers, body)
    }
}

fn starts_as_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}
