//! `POST /api/records/{id}/reopen`: an answer was stored as final and was none.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::resolve::{change, is_about, note};
use crate::admin::error::ApiError;
use crate::admin::state::AdminState;
use crate::idempotency::{Record, RecordId};

/// The body of a reopen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Reopen {
    /// Reason; required.
    reason: String,
    /// Author.
    by: Option<String>,
    /// Attempt examined by the operator; a decision about an earlier attempt is refused.
    attempt: Option<u32>,
}

/// Frees the key of a final record, with a reason. Any other record is refused with 409.
pub(in crate::admin) async fn reopen(
    state: &Arc<AdminState>,
    id: RecordId,
    wanted: Reopen,
) -> Result<Value, ApiError> {
    if wanted.reason.trim().is_empty() {
        let detail = "`reason` is needed: say why the answer was not final";
        return Err(ApiError::invalid("reason-missing", detail));
    }
    let note = note(wanted.by, Some(wanted.reason))?;
    let attempt = wanted.attempt;
    let decide = move |state: &AdminState, record: &Record| {
        is_about(attempt, record)?;
        let retention = state.rules(record).retention;
        let reopened = record.reopened(note.clone(), retention, state.store.now());
        reopened.map(Some).map_err(ApiError::misfit)
    };
    change(state, id, decide).await
}
