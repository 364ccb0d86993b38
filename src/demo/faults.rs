//! What goes wrong, and for which sale: one plan, followed in both tellings.
//!
//! A fault strikes the first request of its sale and no later one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

/// What the backend does wrong with one request.
#[derive(Debug, Clone)]
pub(super) enum BackendFault {
    /// It executes and closes the connection without an answer.
    AnswerLost,
    /// It executes and answers only when the hold is released.
    AnswerHeld(AnswerHold),
    /// It executes and answers 500.
    FailsAfterwards,
    /// It answers 429 and does not execute.
    Busy,
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(super) struct FaultPlan {
    backend: Mutex<HashMap<String, BackendFault>>,
    shop: Mutex<HashSet<String>>,
}

impl FaultPlan {
    /// The backend will do this with the next request of `sale`.
    pub(super) fn at_backend(&self, sale: &str, fault: BackendFault) {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).insert(sale.to_owned(), fault);
    }

    /// The shop's network will lose the next answer to `sale`.
    pub(super) fn in_shop(&self, sale: &str) {
        self.shop.lock().unwrap_or_else(PoisonError::into_inner).insert(sale.to_owned());
    }

    /// What the backend has to do wrong now.
    pub(super) fn take_backend(&self, sale: &str) -> Option<BackendFault> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).remove(sale)
    }

    /// Whether the shop's network has to lose this answer.
    pub(super) fn take_shop(&self, sale: &str) -> bool {
        self.shop.lock().unwrap_or_else(PoisonError::into_inner).remove(sale)
    }
}

/// An answer that the backend holds back. Both sides wait for each other's step, so that the story
/// goes the same way on a slow machine.
#[derive(Debug, Clone)]
pub(super) struct AnswerHold(Arc<watch::Sender<HoldPhase>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum HoldPhase {
    Planned,
    Executed,
    Released,
}

/// The longest that either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

impl Default for AnswerHold {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(HoldPhase::Planned)))
    }
}

impl AnswerHold {
    /// The backend has executed and holds its answer until [`AnswerHold::release`].
    pub(super) async fn hold(&self) {
        self.advance(HoldPhase::Executed);
        self.reach(HoldPhase::Released).await;
    }

    /// Waits until the backend has executed.
    pub(super) async fn executed(&self) {
        self.reach(HoldPhase::Executed).await;
    }

    /// Lets the answer go.
    pub(super) fn release(&self) {
        self.advance(HoldPhase::Released);
    }

    fn advance(&self, to: HoldPhase) {
        self.0.send_modify(|step| *step = to.max(*step));
    }

    async fn reach(&self, wanted: HoldPhase) {
        let mut step = self.0.subscribe();
        // When the other side never comes, the counts at the end tell.
        let _ = tokio::time::timeout(PATIENCE, step.wait_for(|step| *step >= wanted)).await;
    }
}

/// The sale a request is for: the receipt number in `metadata`, where RedeemSG's tills put it.
pub(super) fn sale_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    receipt_of(body.get("metadata")?.as_str()?).map(str::to_owned)
}

/// The receipt number in `receipt_number:789,SKU:001,002`.
pub(super) fn receipt_of(metadata: &str) -> Option<&str> {
    metadata.split(',').find_map(|part| part.trim().strip_prefix("receipt_number:"))
}

/// The metadata of a sale.
pub(super) fn metadata_of(sale: &str) -> String {
    format!("receipt_number:{sale}")
}
