//! The outcome of each sent item, read from the backend's answer.
//!
//! The body decides, not the status: backends report partial issues under 200 and 400 alike. The
//! status matters only where the body has no rows. A missing, repeated or contradictory row makes
//! its item unknown, never "not issued".

use std::ops::Range;

use super::batch::{Batch, Item};
use super::edit::{Edit, edit_value};
use super::rows::{ItemRow, assign};
use super::rules::{ItemRules, MatchBy, scalar};
use super::split::BatchPlan;
pub use crate::idempotency::ledger::ItemOutcome;
use crate::idempotency::ledger::{Doubt, OutcomeList};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::outcome::{OutcomeRules, Verdict};
use crate::json::{Document, JsonType, Pointer, Value};
use crate::matcher::{self, MatchInput, Matcher, StatusPattern};

/// Bytes kept of an answer without rows, with each of its items.
const EVIDENCE: usize = 1024;

/// A complete answer of the backend.
#[derive(Debug, Clone, Copy)]
pub struct BackendResponse<'a> {
    /// Status of the answer.
    pub status: u16,
    /// Body of the answer.
    pub body: &'a [u8],
}

/// The outcomes read from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOutcome {
    /// Outcome of each item of the batch; `None`: the item was not sent.
    pub outcomes: Vec<Option<ItemOutcome>>,
    /// The shape of an answer.
    pub shape: ResponseShape,
    /// Number of rows without a sent item.
    pub surplus: usize,
    /// Place of the rows in the answer, when the answer is an object.
    pub(super) rows: Option<Range<usize>>,
}

impl BatchOutcome {
    /// Reports an answer with rows.
    pub fn has_rows(&self) -> bool {
        self.shape == ResponseShape::Rows
    }

    /// The answer's text with an empty array in the place of its rows, of at most `most` bytes;
    /// empty when the rows are all of it. `None`: it has no rows, or is longer.
    pub fn envelope(&self, body: &[u8], most: usize) -> Option<String> {
        if !self.has_rows() {
            return None;
        }
        let Some(rows) = &self.rows else { return Some(String::new()) };
        let (before, after) = (body.get(..rows.start)?, body.get(rows.end..)?);
        if before.len() + after.len() > most {
            return None;
        }
        let text = [before, b"[]", after].concat();
        String::from_utf8(text).ok()
    }
}

/// The shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseShape {
    /// The answer has rows.
    Rows,
    /// The answer has no rows and reports that nothing was issued.
    Refused,
    /// The answer has no rows and does not report what was issued.
    Unreadable,
}

/// Reads an answer; `outcome` decides by the status when the answer has no rows.
pub fn join(
    rules: &ItemRules,
    outcome: &OutcomeRules,
    batch: &Batch,
    plan: &BatchPlan,
    response: &BackendResponse<'_>,
) -> BatchOutcome {
    let status = response.status;
    let document = Document::parse(response.body).ok().filter(|document| {
        // A row with two members of one name makes nothing but its own item doubtful.
        let place = document.find(&rules.response.at);
        !place.map_or_else(|| document.has_duplicates(), |at| document.has_duplicates_outside(at))
    });
    let place = document.as_ref().and_then(|document| document.find(&rules.response.at));
    let rows: Vec<Value<'_, '_>> = match place {
        Some(place) if place.kind() == JsonType::Array => place.elements().collect(),
        Some(place) if place.kind() == JsonType::Object && rules.response.single => vec![place],
        Some(_) | None => {
            let document = document.as_ref().filter(|document| !document.has_duplicates());
            let refused = refused(rules, outcome, document, response);
            return whole(batch, plan, refused, outcome.verdict(status), response);
        }
    };
    let sent: Vec<(usize, u64)> = plan.sent().collect();
    let items: Vec<_> = sent.iter().filter_map(|(at, _)| batch.items.get(*at)).collect();
    // A refusal may be written as an array of errors.
    let listed = place.is_some_and(|place| place.kind() == JsonType::Array);
    if listed && status >= 400 && rows.iter().all(|row| is_no_row(rules, &items, *row, status)) {
        let denied = denied(rules, outcome, document.as_ref(), response);
        if denied || !rows.is_empty() {
            return whole(batch, plan, denied, outcome.verdict(status), response);
        }
    }
    if rules.response.single
        && let [row] = rows.as_slice()
        && !row.has_duplicates()
        && says_nothing(rules, *row, status)
        && refused(rules, outcome, document.as_ref(), response)
    {
        return whole(batch, plan, true, Verdict::Released, response);
    }
    let (found, surplus) = match (rules.response.single, items.as_slice(), rows.as_slice()) {
        // One item, one row: there is nothing to confuse unless the row names another id.
        (true, [_], [row]) if !names_another(rules, &items[0].id, *row) => {
            (vec![ItemRow::Row(*row)], 0)
        }
        _ => assign(rules, &items, &rows),
    };
    let mut outcomes = vec![None; batch.items.len()];
    for (((at, units), item), found) in sent.iter().zip(&items).zip(found) {
        let doubt = |doubt, row| ItemOutcome::Unknown { doubt, row };
        outcomes[*at] = Some(match found {
            ItemRow::Missing => doubt(Doubt::Missing, None),
            ItemRow::Twice => doubt(Doubt::Duplicated, None),
            ItemRow::Row(row) if row.has_duplicates() => {
                doubt(Doubt::Contradicting, Some(row.raw().to_owned()))
            }
            ItemRow::Row(row) => match issued(rules, row, *units, item.indivisible, status) {
                Ok((units, closed)) => {
                    let (appended, row) = gathered(rules, row);
                    ItemOutcome::Issued { units, appended, row: Some(row), closed }
                }
                Err(why) => doubt(why, Some(row.raw().to_owned())),
            },
        });
    }
    let object = document.as_ref().filter(|document| document.root().kind() == JsonType::Object);
    let rows = object.and(place).map(|place| place.span());
    BatchOutcome { outcomes, shape: ResponseShape::Rows, surplus, rows }
}

/// The same outcome for all sent items.
fn whole(
    batch: &Batch,
    plan: &BatchPlan,
    refused: bool,
    verdict: Verdict,
    response: &BackendResponse<'_>,
) -> BatchOutcome {
    let outcome = if refused {
        ItemOutcome::NOTHING
    } else {
        let doubt = match verdict {
            Verdict::Unknown | Verdict::Pending => {
                Doubt::Lost(UnknownReason::Status(response.status))
            }
            Verdict::Final | Verdict::Released => Doubt::Unreadable,
        };
        ItemOutcome::Unknown { doubt, row: evidence(response.body) }
    };
    let mut outcomes = vec![None; batch.items.len()];
    for (at, _) in plan.sent() {
        outcomes[at] = Some(outcome.clone());
    }
    let shape = if refused { ResponseShape::Refused } else { ResponseShape::Unreadable };
    BatchOutcome { outcomes, shape, surplus: 0, rows: None }
}

/// The start of an unreadable answer, as evidence for an operator.
fn evidence(body: &[u8]) -> Option<String> {
    let start = &body[..body.len().min(EVIDENCE)];
    (!start.is_empty()).then(|| String::from_utf8_lossy(start).into_owned())
}

/// Reports whether an answer without rows proves that nothing was issued: by its status, or by
/// its body under a trusted status. A 5xx without rows is not proof, because a proxy in between
/// may have sent the status.
fn refused(
    rules: &ItemRules,
    outcome: &OutcomeRules,
    document: Option<&Document<'_>>,
    response: &BackendResponse<'_>,
) -> bool {
    let status = response.status;
    if declared_unknown(rules, document, status) {
        return false;
    }
    let root = document.map(Document::root);
    let matches = |list: &[Matcher], need_status: bool| {
        root.is_some_and(|root| {
            matches!(root.kind(), JsonType::Object | JsonType::Array)
                && list.iter().any(|matcher| {
                    (!need_status || matches!(matcher.status, Some(StatusPattern::Exact(_))))
                        && matcher.matches(&MatchInput::row(status, root))
                })
        })
    };
    match outcome.verdict(status) {
        // JSON that is cut off or ambiguous may hold rows, and rows come under any status.
        Verdict::Released => document.is_some() || !starts_as_json(response.body),
        Verdict::Final => matches(&rules.response.not_issued, false),
        Verdict::Unknown | Verdict::Pending => matches(&rules.response.not_issued, true),
    }
}

/// Reports an array of errors that proves that nothing was issued: as an answer without rows, or
/// because nobody acts for a caller who is refused.
fn denied(
    rules: &ItemRules,
    outcome: &OutcomeRules,
    document: Option<&Document<'_>>,
    response: &BackendResponse<'_>,
) -> bool {
    let status = response.status;
    let caller_is_refused =
        matches!(status, 401 | 403) && outcome.verdict(status) == Verdict::Final;
    refused(rules, outcome, document, response)
        || caller_is_refused && !declared_unknown(rules, document, status)
}

/// Reports an answer without rows that declares its outcome unknown.
fn declared_unknown(rules: &ItemRules, document: Option<&Document<'_>>, status: u16) -> bool {
    document.map(Document::root).is_some_and(|root| {
        matches!(root.kind(), JsonType::Object | JsonType::Array)
            && matcher::any(&rules.response.unknown, &MatchInput::row(status, root))
    })
}

/// Reports an element that says nothing of issued units and names none of the sent items.
fn is_no_row(rules: &ItemRules, sent: &[&Item], row: Value<'_, '_>, status: u16) -> bool {
    if row.has_duplicates() || !says_nothing(rules, row, status) {
        return false;
    }
    let mut member = 0;
    !rules.response.by.iter().any(|by| match by {
        MatchBy::Id(pointer) => {
            let id = row.find(pointer).and_then(|value| value.as_id());
            id.is_some_and(|id| sent.iter().any(|item| *item.id == *id))
        }
        MatchBy::Member(pointer) => {
            let value = row.find(pointer).and_then(scalar);
            let of = |item: &&Item| item.members.get(member).cloned().flatten();
            let named = value
                .is_some_and(|value| sent.iter().filter_map(of).any(|(other, _)| other == *value));
            member += 1;
            named
        }
        MatchBy::Position => false,
    })
}

fn starts_as_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

fn names_another(rules: &ItemRules, id: &str, row: Value<'_, '_>) -> bool {
    rules.response.by.iter().any(|by| match by {
        MatchBy::Id(pointer) => row
            .find(pointer)
            .filter(|named| named.kind() != JsonType::Null)
            .is_some_and(|named| named.as_id().as_deref() != Some(id)),
        MatchBy::Member(_) | MatchBy::Position => false,
    })
}

/// Reports a row with neither a count nor a code for the issued units.
fn says_nothing(rules: &ItemRules, row: Value<'_, '_>, status: u16) -> bool {
    issued(rules, row, u64::MAX, false, status) == Err(Doubt::CountMissing)
}

/// Number of units issued according to a row, and whether the item is closed.
fn issued(
    rules: &ItemRules,
    row: Value<'_, '_>,
    sent: u64,
    indivisible: bool,
    status: u16,
) -> Result<(u64, bool), Doubt> {
    let response = &rules.response;
    let input = MatchInput::row(status, row);
    let any = |list: &[Matcher]| matcher::any(list, &input);
    if row.kind() != JsonType::Object {
        return Err(Doubt::CountMissing);
    }
    if any(&response.unknown) {
        return Err(Doubt::Declared);
    }
    let closed = any(&response.finals);
    let denied = closed || any(&response.retry);
    let counted = match response.issued.count.as_ref().and_then(|pointer| present(row, pointer)) {
        Some(count) => Some(units(count).ok_or(Doubt::Contradicting)?),
        None => None,
    };
    let mut listed = None;
    for array in response.issued.arrays.iter().filter_map(|pointer| present(row, pointer)) {
        if array.kind() != JsonType::Array {
            return Err(Doubt::Contradicting);
        }
        listed = Some(listed.unwrap_or(0) + array.elements().count() as u64);
    }
    let issued = match (counted, listed) {
        (Some(counted), Some(listed)) if counted != listed => return Err(Doubt::Contradicting),
        // A row that denies and counts, without showing what it counts, says two things.
        (Some(counted), None) if counted > 0 && denied => return Err(Doubt::Contradicting),
        (Some(units), _) | (None, Some(units)) => units,
        (None, None) => {
            let all = any(&response.issued.all);
            match (denied, all) {
                (true, true) => return Err(Doubt::Contradicting),
                (true, false) => 0,
                (false, true) => sent,
                (false, false) => return Err(Doubt::CountMissing),
            }
        }
    };
    if issued > sent {
        return Err(Doubt::OverIssued);
    }
    if indivisible && issued > 0 && issued < sent {
        return Err(Doubt::Divided);
    }
    Ok((issued, closed))
}

fn present<'d, 'a>(row: Value<'d, 'a>, pointer: &Pointer) -> Option<Value<'d, 'a>> {
    row.find(pointer).filter(|value| value.kind() != JsonType::Null)
}

/// A count: digits, with a fraction of zeros at most, as a number or in a string.
fn units(value: Value<'_, '_>) -> Option<u64> {
    let text = value.as_id()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = digits(fraction) && fraction.bytes().all(|byte| byte == b'0');
    if digits(whole) && zeros { whole.parse().ok() } else { None }
}

/// The elements of a row's `append` arrays, and the row with those arrays emptied.
fn gathered(rules: &ItemRules, row: Value<'_, '_>) -> (Vec<OutcomeList>, String) {
    let mut appended = Vec::new();
    let mut emptied = Vec::new();
    for pointer in &rules.response.append {
        let Some(array) = row.find(pointer) else { continue };
        let elements: Vec<String> =
            array.elements().map(|element| element.raw().to_owned()).collect();
        if !elements.is_empty() {
            emptied.push(Edit::new(pointer, "[]"));
            appended.push(OutcomeList { at: pointer.to_string(), elements });
        }
    }
    (appended, edit_value(row, &emptied))
}
