//! The planned faults of each sale, equal in both runs.
//!
//! A fault hits the first request of its sale only.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

/// A fault of the backend for a single request.
#[derive(Debug, Clone)]
pub(super) enum BackendFault {
    /// The backend executes and closes the connection without an answer.
    AnswerLost,
    /// The backend executes and answers only after the hold is released.
    AnswerHeld(AnswerHold),
    /// The backend executes and answers 500.
    FailsAfterwards,
    /// The backend answers 429 and does not execute.
    Busy,
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(super) struct FaultPlan {
    backend: Mutex<HashMap<String, BackendFault>>,
    shop: Mutex<HashSet<String>>,
}

impl FaultPlan {
    /// Plans a fault of the backend for the next request of `sale`.
    pub(super) fn at_backend(&self, sale: &str, fault: BackendFault) {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).insert(sale.to_owned(), fault);
    }

    /// Plans the loss of the next answer to `sale` in the shop's network.
    pub(super) fn in_shop(&self, sale: &str) {
        self.shop.lock().unwrap_or_else(PoisonError::into_inner).insert(sale.to_owned());
    }

    /// Takes the backend's fault for `sale`.
    pub(super) fn take_backend(&self, sale: &str) -> Option<BackendFault> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).remove(sale)
    }

    /// Takes the fault of the shop's network for `sale`.
    pub(super) fn take_shop(&self, sale: &str) -> bool {
        self.shop.lock().unwrap_or_else(PoisonError::into_inner).remove(sale)
    }
}

/// An answer held back by the backend. Both sides wait for each other's step, so that the demo
/// runs alike on a slow machine.
#[derive(Debug, Clone)]
pub(super) struct AnswerHold(Arc<watch::Sender<HoldPhase>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum HoldPhase {
    Planned,
    Executed,
    Released,
}

/// Time limit for the wait of either side.
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

/// The sale of a request: the receipt number in `metadata`, as RedeemSG's tills send it.
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
