//! The meaning of a backend's complete answer for the record (`[route.outcome]`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::matcher::{MatchBody, MatchInput, Matcher, StatusPattern, Truth};

/// The meaning of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The backend decided; the answer is kept and replayed.
    Final,
    /// The backend asserts that it did not execute; the claim is released.
    Released,
    /// The backend accepted the request and has not decided.
    Pending,
    /// The answer does not show whether the backend acted.
    Unknown,
}

/// The reason an outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownReason {
    /// The backend answered with a status that does not show whether the request was executed.
    Status(u16),
    /// The upstream `timeout` ran out.
    Timeout,
    /// The connection failed after the request, or a part of it, was written.
    ConnectionLost,
    /// The answer ended early.
    Truncated,
    /// The answer arrived and is no HTTP response that can be trusted.
    BadResponse,
    /// The backend answered 101 Switching Protocols.
    Upgraded,
    /// The process ended while the call was in flight.
    ProcessEnded,
    /// The answer arrived but could not be stored.
    NotRecorded,
    /// The backend accepted the request and has not decided yet; holds its status.
    Pending(u16),
    /// The backend refused a later attempt of a lost call as already done; holds its status.
    AlreadyDone(u16),
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => {
                write!(f, "the backend answered {status}, which does not say whether it acted")
            }
            Self::Timeout => f.write_str("the backend did not answer in time"),
            Self::ConnectionLost => f.write_str("the connection failed after the request was sent"),
            Self::Truncated => f.write_str("the backend's answer ended early"),
            Self::BadResponse => f.write_str("the backend's answer could not be read"),
            Self::Upgraded => f.write_str("the backend answered 101 Switching Protocols"),
            Self::ProcessEnded => f.write_str("the gateway ended while the call was in flight"),
            Self::NotRecorded => f.write_str("the answer arrived but could not be stored"),
            Self::Pending(status) => {
                write!(f, "the backend answered {status}: accepted, and not decided yet")
            }
            Self::AlreadyDone(status) => {
                write!(f, "the backend answered {status}: an earlier attempt was executed")
            }
        }
    }
}

/// The mapping from an answer to its verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutcomeRules {
    entries: Vec<(StatusPattern, Verdict)>,
    matchers: Vec<(Matcher, Verdict)>,
}

/// A verdict and the entry that led to the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement<'r> {
    /// The meaning of the answer.
    pub verdict: Verdict,
    /// The entry.
    pub basis: JudgementBasis<'r>,
}

/// The entry that led to a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgementBasis<'r> {
    /// A matcher.
    Matcher(&'r Matcher),
    /// Two matchers of different lists: the outcome is unknown.
    Contradiction(&'r Matcher, &'r Matcher),
    /// A matcher that has to see a body too large to look at: the outcome is unknown.
    Unseen(&'r Matcher),
    /// A status, or a class of statuses.
    Status(StatusPattern),
    /// No entry: the outcome is unknown.
    Unlisted,
}

impl fmt::Display for JudgementBasis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matcher(matcher) => write!(f, "the answer matches {matcher}"),
            Self::Contradiction(one, other) => {
                write!(f, "the answer matches {one} and {other}, which contradict each other")
            }
            Self::Unseen(matcher) => {
                write!(f, "the answer is too large to be compared with {matcher}")
            }
            Self::Status(pattern) => write!(f, "the status is {pattern}"),
            Self::Unlisted => f.write_str("no entry names the status"),
        }
    }
}

/// An entry with two verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomeConflict(pub StatusPattern);

impl OutcomeRules {
    /// Creates the rules from entries; a status without entry is unknown.
    ///
    /// # Errors
    /// The same entry has two verdicts.
    pub fn new(entries: Vec<(StatusPattern, Verdict)>) -> Result<Self, OutcomeConflict> {
        for (at, (pattern, verdict)) in entries.iter().enumerate() {
            let twice = |(other, meaning): &(StatusPattern, Verdict)| {
                other == pattern && meaning != verdict
            };
            if entries[..at].iter().any(twice) {
                return Err(OutcomeConflict(*pattern));
            }
        }
        Ok(Self { entries, matchers: Vec::new() })
    }

    /// The rules with these matchers, each more specific than any status.
    #[must_use]
    pub fn with_matchers(self, matchers: Vec<(Matcher, Verdict)>) -> Self {
        Self { matchers, ..self }
    }

    /// The verdict on a complete answer by its status alone.
    pub fn verdict(&self, status: u16) -> Verdict {
        self.by_status(status).verdict
    }

    /// The judgement of a complete answer: by the matcher that holds, else by the status. Matchers
    /// of two lists contradict each other, so that the outcome is unknown.
    pub fn judge(&self, answer: &MatchInput<'_, '_>) -> Judgement<'_> {
        let status = answer.status.unwrap_or_default();
        let judgement = |verdict, basis| Judgement { verdict, basis };
        if status < 200 || self.matchers.is_empty() {
            return self.by_status(status);
        }
        let mut found: Option<(&Matcher, Verdict)> = None;
        let mut unseen = None;
        for (matcher, verdict) in &self.matchers {
            match (matcher.truth(answer), found) {
                (Truth::Yes, Some((first, other))) if other != *verdict => {
                    let basis = JudgementBasis::Contradiction(first, matcher);
                    return judgement(Verdict::Unknown, basis);
                }
                (Truth::Yes, _) => found = Some((matcher, *verdict)),
                (Truth::Undecided, _) if matches!(answer.body, MatchBody::Unseen) => {
                    unseen = Some(matcher);
                }
                (Truth::Undecided | Truth::No, _) => {}
            }
        }
        match (found, unseen) {
            (_, Some(matcher)) => judgement(Verdict::Unknown, JudgementBasis::Unseen(matcher)),
            (Some((matcher, verdict)), None) => {
                judgement(verdict, JudgementBasis::Matcher(matcher))
            }
            (None, None) => self.by_status(status),
        }
    }

    /// The entry of the exact status, else of its class. Status 101 is always unknown, because the
    /// backend left HTTP.
    fn by_status(&self, status: u16) -> Judgement<'_> {
        let unlisted = Judgement { verdict: Verdict::Unknown, basis: JudgementBasis::Unlisted };
        if status < 200 {
            return unlisted;
        }
        let find = |pattern: StatusPattern| {
            let (_, verdict) = self.entries.iter().find(|(entry, _)| *entry == pattern)?;
            Some(Judgement { verdict: *verdict, basis: JudgementBasis::Status(pattern) })
        };
        find(StatusPattern::Exact(status))
            .or_else(|| find(StatusPattern::Class(u8::try_from(status / 100).unwrap_or(0))))
            .unwrap_or(unlisted)
    }

    /// The matchers, in the order given.
    pub fn matchers(&self) -> &[(Matcher, Verdict)] {
        &self.matchers
    }

    /// The entries, in the order given.
    pub fn entries(&self) -> &[(StatusPattern, Verdict)] {
        &self.entries
    }
}
