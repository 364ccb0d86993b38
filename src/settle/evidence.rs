//! Reading of a probe's answers, pure: the rows that match a record, and the rules about the single
//! one. Answers that cannot be read prove nothing.

use std::time::Duration;

use http::HeaderMap;

use super::conclude::Evidence;
use super::response;
use super::row_time::row_time;
use super::values::RecordValues;
use crate::clock::Timestamp;
use crate::config::{ListRules, ProbeRules, WindowRules};
use crate::idempotency::Record;
use crate::json::{Document, JsonType, Pointer, Value};
use crate::matcher::{HeaderView, MatchBody, MatchInput, Matcher, ParsedBody, any, same_number};
use crate::template::RenderError;

/// Matching rows kept, at most: two already prove nothing.
const MOST_ROWS: usize = 16;

/// A whole answer to a probe.
#[derive(Debug)]
pub(crate) struct ProbeAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl ProbeAnswer {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The evidence of an answer with a single object.
pub(crate) fn of_object(
    rules: &ProbeRules,
    record: &Record,
    answer: &ProbeAnswer,
    now: Timestamp,
) -> Evidence {
    let body = ParsedBody::new(&answer.body);
    let headers = HeaderView::Map(&answer.headers);
    let input = MatchInput::answer(answer.status, headers, MatchBody::Whole(&body));
    let says_twice = body.json().is_some_and(|json| json.has_duplicates());
    let readable = answer.is_success() && is_data(answer, &body) && !says_twice;
    // An error page proves nothing, unless a rule names its status.
    let applies = |matcher: &Matcher| readable || matcher.status.is_some();
    let row = body.json().map(|json| json.root().raw());
    if let Some(evidence) = ruled(rules, record, (&input, row, now), &applies) {
        return evidence;
    }
    match answer.status {
        404 if !is_page(answer) => Evidence::Absent,
        status if !answer.is_success() => Evidence::Nothing(format!("the probe got {status}")),
        _ if !readable => Evidence::Nothing("the probe's answer is no data".to_owned()),
        _ => Evidence::Undecided("the object meets no rule".to_owned()),
    }
}

/// Reports a page for people, such as a proxy's in front of a backend that is away.
fn is_page(answer: &ProbeAnswer) -> bool {
    let kind = answer.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_html = kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
    is_html || answer.body.trim_ascii_start().starts_with(b"<!")
}

/// Reports JSON, or XML that is no page for people.
fn is_data(answer: &ProbeAnswer, body: &ParsedBody<'_>) -> bool {
    if body.json().is_some() {
        return true;
    }
    let kind = answer.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let text = answer.body.trim_ascii();
    kind.contains("xml") && !kind.contains("html") && text.ends_with(b">") && text.starts_with(b"<")
}

/// The evidence of the first rule that applies and holds.
fn ruled(
    rules: &ProbeRules,
    record: &Record,
    (input, row, now): (&MatchInput<'_, '_>, Option<&str>, Timestamp),
    applies: &dyn Fn(&Matcher) -> bool,
) -> Option<Evidence> {
    let holds = |list: &[Matcher]| {
        let list: Vec<Matcher> = list.iter().filter(|matcher| applies(matcher)).cloned().collect();
        any(&list, input)
    };
    if holds(&rules.executed) {
        let values = RecordValues { record, row, now };
        let response = response::settled(rules.response.as_ref(), &values);
        return Some(Evidence::Executed(response));
    }
    if holds(&rules.not_executed) {
        return Some(Evidence::NotExecuted);
    }
    holds(&rules.pending).then_some(Evidence::Pending)
}

/// The rows of a list that match a record, over all pages.
#[derive(Debug)]
pub(crate) struct RowSearch<'r> {
    rules: &'r ListRules,
    expected: Vec<ExpectedMember<'r>>,
    /// The dispatches whose row is looked for: the first and the last.
    dispatched: (Timestamp, Timestamp),
    found: Vec<String>,
    /// More rows than can be kept match.
    many: bool,
    /// A row matches but for its time, which cannot be read.
    timeless: bool,
    /// A matching row stands on two pages: the list moved while it was read, or has equal rows.
    moved: bool,
    /// The backend's clock is so far from the gateway's that the row may lie outside of the window.
    is_skewed: bool,
}

#[derive(Debug)]
struct ExpectedMember<'r> {
    at: &'r Pointer,
    text: String,
    is_number: bool,
}

impl<'r> RowSearch<'r> {
    /// A search for the rows of `record`.
    ///
    /// # Errors
    /// A template of `match` has no value.
    pub(crate) fn new(
        rules: &'r ListRules,
        record: &Record,
        now: Timestamp,
    ) -> Result<Self, RenderError> {
        let values = RecordValues { record, row: None, now };
        let expected = rules.members.iter().map(|(at, template)| {
            let (text, is_number) = (template.render(&values)?, template.is_number(&values));
            Ok(ExpectedMember { at, text, is_number })
        });
        Ok(Self {
            rules,
            expected: expected.collect::<Result<_, _>>()?,
            dispatched: dispatches(record),
            found: Vec::new(),
            many: false,
            timeless: false,
            moved: false,
            is_skewed: false,
        })
    }

    /// Reads a page that arrived between these times.
    ///
    /// # Errors
    /// The reason why the answer is no page of the list.
    pub(crate) fn page(
        &mut self,
        answer: &ProbeAnswer,
        times: (Timestamp, Timestamp),
    ) -> Result<(), String> {
        if !answer.is_success() {
            return Err(format!("the probe got {} for a list", answer.status));
        }
        let Ok(document) = Document::parse(&answer.body) else {
            return Err("the probe's answer is no JSON".to_owned());
        };
        let rows = document.find(&self.rules.rows);
        let Some(rows) = rows.filter(|rows| rows.kind() == JsonType::Array) else {
            return Err(format!("the probe's answer has no array at \"{}\"", self.rules.rows));
        };
        if let Some(window) = &self.rules.window {
            self.is_skewed |= is_skewed(&answer.headers, window, times);
        }
        let before = self.found.len();
        for row in rows.elements() {
            if row.has_duplicates() {
                return Err("a row of the list has a member twice".to_owned());
            }
            self.row(row, before);
        }
        Ok(())
    }

    /// Notes a row if it matches. `before`: the number of rows found on earlier pages.
    fn row(&mut self, row: Value<'_, '_>, before: usize) {
        if !self.expected.iter().all(|expected| expected.matches(row)) {
            return;
        }
        match self.rules.window.as_ref().map(|window| within(row, window, self.dispatched)) {
            Some(Some(false)) => return,
            Some(None) => {
                self.timeless = true;
                return;
            }
            Some(Some(true)) | None => {}
        }
        // Equal rows on one page are two executions. On two pages they may be one, if the list
        // moved while it was read.
        if self.found.iter().take(before).any(|found| found == row.raw()) {
            self.moved = true;
            return;
        }
        if self.found.len() < MOST_ROWS {
            self.found.push(row.raw().to_owned());
        } else {
            self.many = true;
        }
    }

    /// The evidence of the whole list.
    pub(crate) fn evidence(&self, rules: &ProbeRules, record: &Record, now: Timestamp) -> Evidence {
        if self.timeless {
            return Evidence::Undecided("a matching row has no time that can be read".to_owned());
        }
        if let Some(ledger) = record.ledger() {
            return self.of_units(rules, (record, ledger.unknown), now);
        }
        let row = match self.found.as_slice() {
            [] => return self.absent(Evidence::Absent),
            [row] if !self.many => row,
            rows => return Evidence::Several(rows.len()),
        };
        let Ok(document) = Document::parse(row.as_bytes()) else {
            return Evidence::Nothing("the row cannot be read".to_owned());
        };
        let input = MatchInput::row(200, document.root());
        let evidence = ruled(rules, record, (&input, Some(row), now), &|_| true);
        evidence.unwrap_or_else(|| Evidence::Undecided("the row meets no rule".to_owned()))
    }
}

impl RowSearch<'_> {
    /// Evidence of absence, unless the clocks differ too much for the window.
    fn absent(&self, evidence: Evidence) -> Evidence {
        match self.is_skewed {
            true => Evidence::Undecided(
                "no row lies in the window, but the backend's clock differs from the gateway's"
                    .to_owned(),
            ),
            false => evidence,
        }
    }

    /// The evidence of the whole list for an item with so many unknown units: each executed row is
    /// one of them.
    fn of_units(
        &self,
        rules: &ProbeRules,
        (record, unknown): (&Record, u64),
        now: Timestamp,
    ) -> Evidence {
        if self.moved {
            let why = "equal rows stand on two pages, which may be one unit or two";
            return Evidence::Undecided(why.to_owned());
        }
        let (mut executed, mut not_executed, mut pending) = (0, 0, false);
        for row in &self.found {
            let Ok(document) = Document::parse(row.as_bytes()) else {
                return Evidence::Nothing("the row cannot be read".to_owned());
            };
            let input = MatchInput::row(200, document.root());
            match ruled(rules, record, (&input, Some(row), now), &|_| true) {
                Some(Evidence::Executed(_)) => executed += 1,
                Some(Evidence::NotExecuted) => not_executed += 1,
                Some(_) => pending = true,
                None => return Evidence::Undecided("a row meets no rule".to_owned()),
            }
        }
        match executed {
            _ if self.many || executed > unknown => Evidence::Several(self.found.len()),
            _ if pending => Evidence::Pending,
            _ if executed + not_executed == unknown => Evidence::Units(executed),
            0 => self.absent(Evidence::Absent),
            _ => self.absent(Evidence::PartlyAbsent(executed)),
        }
    }
}

impl ExpectedMember<'_> {
    fn matches(&self, row: Value<'_, '_>) -> bool {
        let Some(value) = row.find(self.at) else { return false };
        match value.kind() {
            JsonType::Number => same_number(value.raw(), &self.text),
            JsonType::Bool => value.raw() == self.text,
            JsonType::String => value.as_str().is_some_and(|text| {
                text == self.text || (self.is_number && same_number(&text, &self.text))
            }),
            JsonType::Null | JsonType::Array | JsonType::Object => false,
        }
    }
}

/// Reports an answer whose `Date` is further from the times of its look than the window reaches: a
/// clock was wrong or was set, or a cache gave an old list. Without `Date` nothing is known.
fn is_skewed(
    headers: &HeaderMap,
    window: &WindowRules,
    (started, arrived): (Timestamp, Timestamp),
) -> bool {
    let date = headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
    let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return false;
    };
    let since = date.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let date = Timestamp::from_millis(crate::clock::millis(since));
    let earliest = date.saturating_add(window.before + CLOCK_TOLERANCE);
    let latest = arrived.saturating_add(window.after + CLOCK_TOLERANCE);
    earliest < started || date > latest
}

/// Difference of two clocks that no window has to cover: `Date` has whole seconds.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// The dispatches whose row is looked for: of the last attempt, or of all where the backend says
/// that an earlier one was executed.
fn dispatches(record: &Record) -> (Timestamp, Timestamp) {
    let last = record.dispatched();
    (if record.is_already_done() { record.first_seen.min(last) } else { last }, last)
}

/// Reports a row whose time is in the window; `None`: the time cannot be read.
fn within(
    row: Value<'_, '_>,
    window: &WindowRules,
    (first, last): (Timestamp, Timestamp),
) -> Option<bool> {
    let at = row_time(&row.find(&window.at)?.as_id()?)?.as_millis();
    let start = first.as_millis().saturating_sub(crate::clock::millis(window.before));
    let end = last.saturating_add(window.after).as_millis();
    // A time in whole seconds is not before the part of a second in which the window starts.
    let second = crate::clock::millis(Duration::from_secs(1));
    Some((start - start % second..=end).contains(&at))
}
