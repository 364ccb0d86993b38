//! The plan of a batch: from the batch and each item's ledger entry to the upstream body with the
//! missing units.

use super::batch::Batch;
use super::edit::{Splice, spliced};
use super::rules::ItemRules;
use crate::idempotency::Fingerprint;
use crate::idempotency::ledger::Ledger;

/// The stored state of an item.
#[derive(Debug, Clone, Copy)]
pub struct ExistingItem<'r> {
    /// Fingerprint of the item's first claim.
    pub fingerprint: &'r Fingerprint,
    /// Ledger entry of the item.
    pub ledger: &'r Ledger,
}

/// The decision about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemDecision {
    /// All units are issued, or no more will ever be.
    Settled,
    /// Send this many units; at least 1.
    Send(u64),
    /// The outcome of some units is unknown; nothing is sent.
    Unknown,
    /// A call for the item is in flight; wait.
    InFlight,
    /// The id belongs to another item; refuse the whole request.
    Reused,
}

/// The decisions about a batch, item by item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// In the order of [`Batch::items`].
    pub items: Vec<ItemDecision>,
}

/// The decision about the whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchDecision {
    /// An id belongs to another item; refuse the request.
    Reused {
        /// Index of the first such item.
        item: usize,
    },
    /// A call is in flight; wait.
    InFlight {
        /// Index of the first item in flight.
        item: usize,
    },
    /// Claim the items of [`BatchPlan::sent`] and send them.
    Send,
    /// Answer from the ledger.
    Replay,
}

impl BatchPlan {
    /// Creates the plan for a batch; `known` has an element for each item.
    pub fn of(batch: &Batch, known: &[Option<ExistingItem<'_>>]) -> Self {
        let part = |(at, item): (usize, &super::batch::Item)| {
            let Some(known) = known.get(at).copied().flatten() else {
                return ItemDecision::Send(item.quantity);
            };
            let ledger = known.ledger;
            if !known.fingerprint.is_made_of(&item.digest, &item.verbatim, batch.rule) {
                return ItemDecision::Reused;
            }
            // An entry that does not add up is not acted on, and neither is one that a digest of
            // the same quantity contradicts.
            if ledger.check().is_err() || ledger.requested != item.quantity {
                return ItemDecision::Unknown;
            }
            if ledger.in_flight > 0 {
                return ItemDecision::InFlight;
            }
            if ledger.unknown > 0 {
                return ItemDecision::Unknown;
            }
            match ledger.remaining() {
                0 => ItemDecision::Settled,
                // What is left of something indivisible can never be sent.
                units if item.indivisible && units < item.quantity => ItemDecision::Settled,
                units => ItemDecision::Send(units),
            }
        };
        Self { items: batch.items.iter().enumerate().map(part).collect() }
    }

    /// The decision about the whole request.
    pub fn decision(&self) -> BatchDecision {
        let first = |wanted: ItemDecision| self.items.iter().position(|part| *part == wanted);
        if let Some(item) = first(ItemDecision::Reused) {
            return BatchDecision::Reused { item };
        }
        if let Some(item) = first(ItemDecision::InFlight) {
            return BatchDecision::InFlight { item };
        }
        if self.sent().next().is_some() { BatchDecision::Send } else { BatchDecision::Replay }
    }

    /// Index and units of each item to send, in order.
    pub fn sent(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.items.iter().enumerate().filter_map(|(at, part)| match part {
            ItemDecision::Send(units) => Some((at, *units)),
            ItemDecision::Settled
            | ItemDecision::Unknown
            | ItemDecision::InFlight
            | ItemDecision::Reused => None,
        })
    }

    /// The upstream body: `body`, from which `batch` was read, without the items that are not
    /// sent, and with the remaining quantities. Every other byte is kept. `None` when nothing is
    /// to be sent, or `body` is another body.
    pub fn body(&self, rules: &ItemRules, batch: &Batch, body: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(body).ok()?;
        self.sent().next()?;
        let mut splices = Vec::new();
        // What stands between `[` and the first item that is sent stays, less the items before it;
        // each later one brings the separator that stood before it.
        let mut first = true;
        for (at, item) in batch.items.iter().enumerate() {
            match self.items.get(at)? {
                ItemDecision::Send(units) => {
                    first = false;
                    if *units != item.quantity {
                        splices
                            .push(Splice::replaces(item.quantity_span.clone()?, units.to_string()));
                    }
                }
                ItemDecision::Settled
                | ItemDecision::Unknown
                | ItemDecision::InFlight
                | ItemDecision::Reused => {
                    if rules.single {
                        return None;
                    }
                    let end_of = |at: usize| Some(batch.items.get(at)?.span.end);
                    let gone = if first {
                        item.span.start..batch.items.get(at + 1)?.span.start
                    } else {
                        end_of(at.checked_sub(1)?)?..item.span.end
                    };
                    splices.push(Splice::replaces(gone, ""));
                }
            }
        }
        text.get(batch.list.clone())?;
        Some(spliced(text, splices).into_bytes())
    }
}
