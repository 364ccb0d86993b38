//! Operators' decisions: settling unknown outcomes and purging answers. The rules are in
//! `idempotency::settle`; this file makes decisions durable, announces them to other processes
//! and logs them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;

use super::response::{self, ResponseInput, StrictObject};
use super::view;
use super::view::detail;
use crate::admin::error::ApiError;
use crate::admin::state::AdminState;
use crate::config::Mode;
use crate::idempotency::history::{HistoryEvent, Note};
use crate::idempotency::retention::Retention;
use crate::idempotency::settle::{Settlement, SettlementError};
use crate::idempotency::{Record, RecordId};
use crate::settle::transition::{Advance, Transition, advance};
use crate::store::Change;

/// Author of decisions without a name: the API knows a single token.
const SOMEBODY: &str = "operator";

/// The body of a resolve.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Resolve {
    #[serde(rename = "as")]
    how: Resolution,
    /// Reason; required.
    reason: String,
    /// Author.
    by: Option<String>,
    /// Response replayed from now on.
    response: Option<StrictObject<ResponseInput>>,
    /// Number of issued units of an item.
    units: Option<u64>,
    /// Attempt examined by the operator; a decision about an earlier attempt is refused.
    attempt: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Resolution {
    Executed,
    NotExecuted,
}

/// `GET /api/records/{id}`
pub(in crate::admin) async fn show(state: &AdminState, id: RecordId) -> Result<Value, ApiError> {
    let record = state.store.get(id).await.map_err(|error| ApiError::unread(&error))?;
    let record = record.and_then(|record| view::current(record, state.store.expiry_time()));
    record.map(|record| detail(&id, &record)).ok_or_else(ApiError::no_record)
}

/// `POST /api/records/{id}/resolve`
pub(in crate::admin) async fn resolve(
    state: &Arc<AdminState>,
    id: RecordId,
    wanted: Resolve,
) -> Result<Value, ApiError> {
    if wanted.reason.trim().is_empty() {
        return Err(ApiError::invalid(
            "reason-missing",
            "`reason` is needed: say what you looked at",
        ));
    }
    let note = note(wanted.by, Some(wanted.reason))?;
    let (mut given, how, units) = (wanted.response, wanted.how, wanted.units);
    let attempt = wanted.attempt;
    if how == Resolution::NotExecuted && (given.is_some() || units.is_some()) {
        return Err(ApiError::misfit(SettlementError::Kind));
    }
    // The response is checked by the rules of the record's route, once that is known.
    let mut settling = None;
    let decide = move |state: &AdminState, record: &Record| {
        let now = state.store.now();
        let is_item = record.ledger().is_some();
        is_about(attempt, record)?;
        if (is_item && given.is_some()) || (!is_item && units.is_some()) {
            return Err(ApiError::misfit(SettlementError::Kind));
        }
        let rules = state.rules(record);
        let settling = match &settling {
            Some(settling) => settling,
            None => settling.insert(match (how, given.take()) {
                (Resolution::NotExecuted, _) => Settlement::NotExecuted,
                (Resolution::Executed, _) if is_item => Settlement::Issued(units),
                (Resolution::Executed, None) => Settlement::Executed(response::usual(now)),
                (Resolution::Executed, Some(StrictObject(written))) => {
                    let ours = rules.replayed_header.as_ref();
                    Settlement::Executed(written.checked(rules.max_stored_body, ours, now)?)
                }
            }),
        };
        let settled = record.settled(settling, note.clone(), rules.retention, now);
        settled.map(Some).map_err(ApiError::misfit)
    };
    change(state, id, decide).await
}

/// `DELETE /api/records/{id}`
pub(in crate::admin) async fn purge(
    state: &Arc<AdminState>,
    id: RecordId,
    (by, reason): (Option<String>, Option<String>),
    attempt: Option<u32>,
) -> Result<Value, ApiError> {
    let note = note(by, reason)?;
    let decide = move |state: &AdminState, record: &Record| {
        is_about(attempt, record)?;
        record.purged(note.clone(), state.store.now()).map_err(ApiError::misfit)
    };
    change(state, id, decide).await
}

pub(super) fn note(by: Option<String>, reason: Option<String>) -> Result<Note, ApiError> {
    let by = by.unwrap_or_else(|| SOMEBODY.to_owned());
    let note = Note::new(by, reason.unwrap_or_default());
    note.map_err(|error| ApiError::invalid("note-invalid", error.to_string()))
}

/// Makes a decision in a task of its own: an operator's disconnect does not stop the task between
/// the swap and the announcement.
pub(super) async fn change(
    state: &Arc<AdminState>,
    id: RecordId,
    decide: impl FnMut(&AdminState, &Record) -> Result<Option<Record>, ApiError> + Send + 'static,
) -> Result<Value, ApiError> {
    let turn = state.turn().await;
    let (sender, receiver) = oneshot::channel();
    let owned = state.clone();
    state.tasks.spawn(async move {
        let outcome = made(&owned, id, decide).await;
        drop(turn);
        // Whoever asked may be gone.
        let _ = sender.send(outcome);
    });
    receiver.await.unwrap_or_else(|_| Err(ApiError::broken()))
}

/// Makes a decision durable. The decision loses against any earlier change of the record, unless
/// the record still has the same attempt and the decision still fits. `decide` returns `None`
/// when nothing is to be done.
async fn made(
    state: &AdminState,
    id: RecordId,
    decide: impl FnMut(&AdminState, &Record) -> Result<Option<Record>, ApiError> + Send,
) -> Result<Value, ApiError> {
    let found = state.store.get(id).await.map_err(|error| ApiError::unread(&error))?;
    let found = found.and_then(|record| view::current_as_it_is(record, state.store.expiry_time()));
    let record = found.ok_or_else(ApiError::no_record)?;
    let mut decision = OperatorDecision { state, id, record, decide, next: None, refused: None };
    let ended = advance(&*state.store, &mut decision).await;
    let OperatorDecision { record, next, refused, .. } = decision;
    if let Some(error) = refused {
        return Err(error);
    }
    match (ended, next) {
        (Advance::Done, Some(next)) => {
            log(&id, &next);
            count(state, &next);
            tell(state, &id).await;
            Ok(detail(&id, &next))
        }
        (Advance::Done, None) => {
            // Decided before; the operator of that decision may not have notified the replicas.
            tell(state, &id).await;
            Ok(detail(&id, &record))
        }
        (Advance::Lost | Advance::Contended, _) => Err(changed()),
        (Advance::Indeterminate(error), _) => {
            tracing::warn!(
                record = %id, %error,
                "the store did not confirm an operator's decision; the decision may be recorded"
            );
            tell(state, &id).await;
            Err(ApiError::unsure(&error))
        }
    }
}

/// A decision about the attempt that the operator looked at.
struct OperatorDecision<'a, D> {
    state: &'a AdminState,
    id: RecordId,
    record: Record,
    decide: D,
    next: Option<Arc<Record>>,
    /// Reason why the decision does not fit the present record.
    refused: Option<ApiError>,
}

impl<D> Transition for OperatorDecision<'_, D>
where
    D: FnMut(&AdminState, &Record) -> Result<Option<Record>, ApiError> + Send,
{
    fn changes(&mut self) -> Vec<Change> {
        self.next = match (self.decide)(self.state, &self.record) {
            Ok(next) => next.map(Arc::new),
            Err(error) => {
                self.refused = Some(error);
                None
            }
        };
        let expect = Some(self.record.version);
        let change = |put| Change { id: self.id, expect, put: Some(put) };
        self.next.clone().map(change).into_iter().collect()
    }

    fn rebase(&mut self, present: Vec<Option<Record>>) -> bool {
        self.next = None;
        match present.into_iter().next().flatten() {
            Some(record) if record.attempt == self.record.attempt => {
                self.record = record;
                true
            }
            Some(_) | None => false,
        }
    }
}

fn changed() -> ApiError {
    ApiError::conflict(
        "changed",
        "the record was changed by somebody else just now, and nothing was decided; look at it \
         again",
    )
}

/// Checks that a decision is about the current attempt; `None`: it names none.
pub(super) fn is_about(named: Option<u32>, record: &Record) -> Result<(), ApiError> {
    let current = record.attempts;
    let Some(named) = named.filter(|named| *named != current) else { return Ok(()) };
    let detail = format!(
        "the decision is about attempt {named}, but attempt {current} is the current one, and \
         nothing was decided; look at the record again"
    );
    Err(ApiError::conflict("changed", detail))
}

/// Counts a settled outcome.
fn count(state: &AdminState, record: &Record) {
    let Some(entry) = record.history.last() else { return };
    if matches!(entry.what, HistoryEvent::Executed | HistoryEvent::NotExecuted) {
        state.metrics.settled(&record.route, "operator", entry.what.as_str());
    }
}

fn log(id: &RecordId, record: &Record) {
    if let Some(entry) = record.history.last() {
        let (what, by) = (entry.what.as_str(), entry.note.by());
        let attempt = entry.attempt;
        tracing::info!(record = %id, what, by, attempt, "operator's decision recorded");
    }
}

/// Drops the record from the caches of all replicas. Also called when the decision may not have
/// been made: an extra read does no harm.
async fn tell(state: &AdminState, id: &RecordId) {
    state.cache.forget(id);
    if let Err(error) = state.store.announce(*id).await {
        tracing::warn!(
            record = %id, %error,
            "other replicas were not notified; they may replay the cached answer for a minute"
        );
    }
}

/// The settings of a record's route.
pub(super) struct RouteSettings {
    pub(super) retention: Retention,
    pub(super) max_stored_body: u64,
    pub(super) replayed_header: Option<http::HeaderName>,
}

impl AdminState {
    /// The rules for a record. Without a configured route, a request gets the store's retention;
    /// an item, whose ledger may continue under another route name, is kept without end.
    pub(super) fn rules(&self, record: &Record) -> RouteSettings {
        let is_item = record.ledger().is_some();
        let routes = self.gateway.routes();
        let route = routes.iter().find(|route| route.name == record.route);
        match route.map(|route| &route.mode) {
            Some(Mode::Request(mode)) if !is_item => RouteSettings {
                retention: mode.record.retention,
                max_stored_body: mode.record.max_stored_body,
                replayed_header: Some(mode.duplicates.replayed_header.clone()),
            },
            Some(Mode::Items(mode)) if is_item => RouteSettings {
                retention: mode.record.retention,
                max_stored_body: mode.record.max_stored_body,
                replayed_header: None,
            },
            Some(Mode::Request(_) | Mode::Items(_) | Mode::Off) | None => RouteSettings {
                retention: match is_item {
                    true => Retention::FOREVER,
                    false => self.settings().retention,
                },
                max_stored_body: self.most_stored(),
                replayed_header: None,
            },
        }
    }
}
