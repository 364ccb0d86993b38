//! The end of a call after its timeout.

use super::claim::{Claimed, Settled};
use super::send::{SendOutcome, kept};
use crate::config::RequestMode;
use crate::idempotency::outcome::Verdict;

/// Settles a record after the timeout, with the late end of the same attempt. The client already
/// has the reply "unknown", yet the attempt's real outcome is authoritative, unless somebody else
/// has decided. `None`: still no answer after a second timeout.
pub(super) async fn settle(claimed: &mut Claimed, mode: &RequestMode, end: Option<SendOutcome>) {
    match end {
        None | Some(SendOutcome::Lost(..)) => {}
        Some(SendOutcome::NotSent(_)) => claimed.release().await,
        Some(SendOutcome::Answered(answer)) => match answer.judge(&mode.outcome).verdict {
            Verdict::Unknown | Verdict::Pending => {}
            Verdict::Released => claimed.release().await,
            Verdict::Final => {
                let stored = answer.stored();
                let status = answer.status();
                match claimed.complete(kept(stored.as_ref(), &answer), None).await {
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
        },
    }
}
