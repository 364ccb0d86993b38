//! The outcome of each sent item, read from the backend's answer.
//!
//! The body decides, not the status: backends report partial issues under 200 and 400 alike. The
//! status matters only where the body has no rows. A missing, repeated or contradictory row makes
//! its item unknown, never "not issued".

use super::batch::{Batch, Item};
use super::find_rows::{self, AnswerFrame, FoundRow, FoundRows};
use super::issued::{IssuedUnits, is_no_row, issued, names_another, says_nothing};
use super::refused::WholeAnswer;
use super::response::BackendResponse;
use super::rows::{ItemRow, assign};
use super::rules::{ItemRules, ListKind};
use super::split::{BatchPlan, ItemDecision};
use crate::idempotency::ledger::Doubt;
pub use crate::idempotency::ledger::ItemOutcome;
use crate::idempotency::outcome::{OutcomeRules, UnknownReason, Verdict};
use crate::json::Document;

/// Bytes kept of an answer without rows, with each of its items.
const EVIDENCE: usize = 1024;

/// The outcomes read from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOutcome {
    /// Outcome of each item of the batch; `None`: the item was not sent.
    pub outcomes: Vec<Option<ItemOutcome>>,
    /// The shape of an answer.
    pub shape: ResponseShape,
    /// The backend asserts that it did not execute the call (`retry` of `[route.outcome]`).
    pub released: bool,
    /// Number of rows without a sent item.
    pub surplus: usize,
    /// The parts of the answer around the rows.
    pub(super) frame: AnswerFrame,
    /// The values that hold the rows.
    pub(super) kind: ListKind,
}

impl BatchOutcome {
    /// Reports an answer that was read: with rows, or as one that reports all items as issued.
    pub fn is_read(&self) -> bool {
        self.shape == ResponseShape::Rows
    }

    /// Reduces the outcomes of repeated items to what they prove: all units, or nothing. `is_done`
    /// tells the rows of refusals because an earlier try was executed; such an item is issued.
    pub fn reduce_repeats(&mut self, plan: &BatchPlan, is_done: impl Fn(&str) -> bool) {
        for (part, outcome) in plan.items.iter().zip(&mut self.outcomes) {
            let (ItemDecision::Repeat(sent), Some(outcome)) = (part, outcome) else { continue };
            let (doubt, row) = match outcome {
                ItemOutcome::Issued { units, .. } if units == sent => continue,
                ItemOutcome::Issued { row, .. } => {
                    (Doubt::Repeated, row.take().map(|row| row.text))
                }
                ItemOutcome::Unknown { doubt, row } => (*doubt, row.take()),
            };
            *outcome = match row.as_deref().is_some_and(&is_done) {
                true => without_row(*sent),
                false => ItemOutcome::Unknown { doubt, row },
            };
        }
    }

    /// The answer's text with empty lists in the place of its rows; an empty object when the text
    /// has more than `most` bytes, nothing when the rows are all of the answer. `None`: the answer
    /// was not read.
    pub fn envelope(&self, body: &[u8], most: usize) -> Option<String> {
        if self.is_read() { self.frame.text(self.kind, body, most) } else { None }
    }
}

/// The shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseShape {
    /// The answer has rows, or reports items without a row as issued.
    Rows,
    /// The answer has no rows and reports that nothing was issued.
    Refused,
    /// The answer has no rows and does not report what was issued.
    Unreadable,
}

/// Reads an answer; `outcome` decides when the answer has no rows.
pub fn join(
    rules: &ItemRules,
    outcome: &OutcomeRules,
    batch: &Batch,
    plan: &BatchPlan,
    response: &BackendResponse<'_>,
) -> BatchOutcome {
    let status = response.status;
    let parsed = Document::parse(response.body).ok();
    let found = parsed.as_ref().and_then(|document| find_rows::find(rules, document, status));
    let call = SentCall { rules, batch, plan };
    let whole = |document| WholeAnswer::new(rules, outcome, *response, document);
    let Some(found) = found else {
        let document = parsed.as_ref().filter(|document| !document.has_duplicates());
        let whole = whole(document);
        return call.without_rows(whole.refused(), &whole);
    };
    let whole = whole(parsed.as_ref());
    let sent: Vec<(usize, u64)> = plan.sent().collect();
    let items: Vec<&Item> = sent.iter().filter_map(|(at, _)| batch.items.get(*at)).collect();
    // A refusal may be written as an array of errors.
    let is_no_row = |row: &FoundRow<'_, '_>| is_no_row(rules, &items, row, status);
    if found.is_listed() && status >= 400 && found.rows.iter().all(is_no_row) {
        let denied = whole.denied();
        if denied || !found.rows.is_empty() {
            return call.without_rows(denied, &whole);
        }
    }
    if rules.response.kind == ListKind::Single
        && let [row] = found.rows.as_slice()
        && !row.value.has_duplicates()
        && says_nothing(rules, row, status)
        && whole.refused()
    {
        return call.without_rows(true, &whole);
    }
    call.with_rows(&found, &whole, (&sent, &items))
}

/// A call whose answer is read.
struct SentCall<'c> {
    rules: &'c ItemRules,
    batch: &'c Batch,
    plan: &'c BatchPlan,
}

impl SentCall<'_> {
    /// The outcomes of an answer with rows.
    fn with_rows(
        &self,
        found: &FoundRows<'_, '_>,
        whole: &WholeAnswer<'_, '_, '_>,
        (sent, items): (&[(usize, u64)], &[&Item]),
    ) -> BatchOutcome {
        let (rules, status) = (self.rules, whole.response.status);
        let is_single = rules.response.kind == ListKind::Single;
        let (assigned, surplus) = match (is_single, items, found.rows.as_slice()) {
            // One item, one row: there is nothing to confuse unless the row names another id.
            (true, [_], [row]) if !names_another(rules, &items[0].id, row) => {
                (vec![ItemRow::Row(0)], 0)
            }
            _ => assign(rules, items, &found.rows),
        };
        // A row of nobody may be the row of an item that seems to have none, and so may one that
        // names a member twice.
        let is_doubtful = |row: &FoundRow<'_, '_>| row.value.has_duplicates();
        let rest_issued = surplus == 0 && whole.all_issued() && !found.rows.iter().any(is_doubtful);
        let mut outcomes = vec![None; self.batch.items.len()];
        for (((at, units), item), row) in sent.iter().zip(items).zip(assigned) {
            let row = match row {
                ItemRow::Row(row) => found.rows.get(row).ok_or(Doubt::Missing),
                ItemRow::Missing if rest_issued => {
                    outcomes[*at] = Some(without_row(*units));
                    continue;
                }
                ItemRow::Missing => Err(Doubt::Missing),
                ItemRow::Twice => Err(Doubt::Duplicated),
            };
            outcomes[*at] = Some(match row {
                Ok(row) => row_outcome(rules, row, (*units, item.indivisible), status),
                Err(doubt) => ItemOutcome::Unknown { doubt, row: None },
            });
        }
        let frame = whole.document.map_or(AnswerFrame::Nothing, |document| {
            found.frame(rules, document, whole.response.body)
        });
        let kind = rules.response.outer_kind();
        let shape = ResponseShape::Rows;
        BatchOutcome { outcomes, shape, released: false, surplus, frame, kind }
    }

    /// The outcomes of an answer without rows: the same for all sent items.
    fn without_rows(&self, refused: bool, whole: &WholeAnswer<'_, '_, '_>) -> BatchOutcome {
        let all_issued = whole.all_issued();
        let body = whole.response.body;
        let (verdict, status) = (whole.verdict(), whole.response.status);
        let doubt = match verdict {
            // The answer says both.
            _ if refused && all_issued => Doubt::Contradicting,
            Verdict::Unknown => Doubt::Lost(UnknownReason::Status(status)),
            Verdict::Pending => Doubt::Lost(UnknownReason::Pending(status)),
            Verdict::Final | Verdict::Released => Doubt::Unreadable,
        };
        let mut outcomes = vec![None; self.batch.items.len()];
        for (at, units) in self.plan.sent() {
            outcomes[at] = Some(match (refused, all_issued) {
                (true, false) => ItemOutcome::NOTHING,
                (false, true) => without_row(units),
                (true, true) | (false, false) => {
                    ItemOutcome::Unknown { doubt, row: evidence(body) }
                }
            });
        }
        let (shape, frame) = match (refused, all_issued) {
            (true, false) => (ResponseShape::Refused, AnswerFrame::Unread),
            (false, true) => {
                let text = std::str::from_utf8(body);
                let frame = text.map_or(AnswerFrame::Unread, |text| AnswerFrame::Text(text.into()));
                (ResponseShape::Rows, frame)
            }
            (true, true) | (false, false) => (ResponseShape::Unreadable, AnswerFrame::Unread),
        };
        let kind = self.rules.response.outer_kind();
        let released = shape == ResponseShape::Refused && verdict == Verdict::Released;
        BatchOutcome { outcomes, shape, released, surplus: 0, frame, kind }
    }
}

fn row_outcome(
    rules: &ItemRules,
    row: &FoundRow<'_, '_>,
    units: (u64, bool),
    status: u16,
) -> ItemOutcome {
    let doubt = |doubt| ItemOutcome::Unknown { doubt, row: Some(row.value.raw().to_owned()) };
    if row.value.has_duplicates() {
        return doubt(Doubt::Contradicting);
    }
    match issued(rules, row, units, status) {
        Ok(IssuedUnits { units, closed }) => {
            let (appended, row) = row.gathered(rules);
            ItemOutcome::Issued { units, appended, row: Some(row), closed }
        }
        Err(why) => doubt(why),
    }
}

/// The outcome of an item that the answer as a whole reports as issued.
const fn without_row(units: u64) -> ItemOutcome {
    ItemOutcome::Issued { units, appended: Vec::new(), row: None, closed: false }
}

/// The start of an unreadable answer, as evidence for an operator.
fn evidence(body: &[u8]) -> Option<String> {
    let start = &body[..body.len().min(EVIDENCE)];
    (!start.is_empty()).then(|| String::from_utf8_lossy(start).into_owned())
}
