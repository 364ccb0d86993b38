//! The end of a call after its timeout.

use http::StatusCode;

use super::already_done;
use super::claim::{Claimed, Settled};
use super::send::{SendOutcome, kept};
use crate::config::{AlreadyDone, RequestMode};
use crate::idempotency::Answer;
use crate::idempotency::outcome::{UnknownReason, Verdict};
use crate::proxy::routing::Route;

/// Settles a record after the timeout, with the late end of the same attempt. The client already
/// has the reply "unknown", yet the attempt's real outcome is authoritative, unless somebody else
/// has decided. `None`: still no answer after a second timeout.
pub(super) async fn settle(
    route: &Route,
    claimed: &mut Claimed,
    mode: &RequestMode,
    end: Option<SendOutcome>,
) {
    let answer = match end {
        None | Some(SendOutcome::Lost(..)) => return,
        Some(SendOutcome::NotSent(_)) => return claimed.release().await,
        Some(SendOutcome::Answered(answer)) => answer,
    };
    let status = answer.status();
    if let Some(rules) = already_done::rules(route, claimed, &answer) {
        return match rules.then {
            AlreadyDone::Succeed => {
                let response = already_done::response(claimed, &rules, &answer);
                complete(claimed, Answer::Kept(response), status).await;
            }
            AlreadyDone::Hold => {
                let reason = UnknownReason::AlreadyDone(status.as_u16());
                claimed.answered_late(route, reason, answer.stored()).await;
            }
        };
    }
    let record = claimed.record();
    let is_resent = record.is_resent();
    match answer.judge(&mode.outcome).verdict {
        // The answer to a repetition says nothing of earlier tries, unless it decides.
        Verdict::Released if is_resent => undecided(claimed, status),
        Verdict::Unknown if is_resent && record.is_pending() => undecided(claimed, status),
        Verdict::Unknown => {
            let reason = UnknownReason::Status(status.as_u16());
            claimed.answered_late(route, reason, answer.stored()).await;
            undecided(claimed, status);
        }
        Verdict::Pending => {
            let reason = UnknownReason::Pending(status.as_u16());
            claimed.answered_late(route, reason, answer.stored()).await;
            undecided(claimed, status);
        }
        Verdict::Released => claimed.release().await,
        Verdict::Final => {
            let stored = answer.stored();
            complete(claimed, kept(stored.as_ref(), &answer), status).await;
        }
    }
}

fn undecided(claimed: &Claimed, status: StatusCode) {
    tracing::info!(
        record = %claimed.id(), %status,
        "a late answer decides nothing; the outcome stays unknown"
    );
}

/// Records the answer of the call, or keeps it beside the decision that was faster.
async fn complete(claimed: &mut Claimed, settled: Answer, status: StatusCode) {
    match claimed.complete(settled, None).await {
        Settled::Recorded { .. } => {
            tracing::info!(record = %claimed.id(), "a late answer settled the outcome");
        }
        Settled::NotRecorded => {}
        Settled::Otherwise(_) => {
            let what = format!("the call's own answer came late, with {status}");
            claimed.contradict(what, status.as_u16() < 400);
        }
    }
}
