//! The plan of a batch: from the batch and each item's ledger entry to the upstream body with the
//! missing units.

use std::ops::Range;

use super::batch::{Batch, Item, ItemGroup};
use super::digest::COUNT;
use super::edit::{Splice, spliced, with_members};
use super::rules::{ItemRules, ListKind};
use crate::idempotency::Fingerprint;
use crate::idempotency::ledger::Ledger;
use crate::json::Pointer;

/// The stored state of an item.
#[derive(Debug, Clone, Copy)]
pub struct ExistingItem<'r> {
    /// Fingerprint of the item's first claim.
    pub fingerprint: &'r Fingerprint,
    /// Ledger entry of the item.
    pub ledger: &'r Ledger,
}

impl ExistingItem<'_> {
    /// The decision about `item` of `batch`, which has this state.
    fn decide(&self, batch: &Batch, item: &Item) -> ItemDecision {
        let ledger = self.ledger;
        if !self.is_same(batch, item) {
            return match self.may_change(batch) {
                true => ItemDecision::Send(item.quantity),
                false => ItemDecision::Reused,
            };
        }
        // An entry that does not add up is not acted on, and neither is one that a digest of the
        // same quantity contradicts.
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
    }

    /// Reports whether the state is of this very item.
    pub(crate) fn is_same(&self, batch: &Batch, item: &Item) -> bool {
        self.fingerprint.is_made_of(&item.digest, &item.verbatim, batch.rule)
    }

    /// Reports whether another item may take the id: nothing was ever issued under it, nothing is
    /// open, and, where ids are positions, the batch still has as many items. An entry that does
    /// not add up proves nothing.
    fn may_change(&self, batch: &Batch) -> bool {
        let ledger = self.ledger;
        let untouched = ledger.check().is_ok() && ledger.fulfilled == 0 && !ledger.is_open();
        let is_as_large = batch.count.is_none_or(|count| {
            let mut members = self.fingerprint.members.iter();
            members.any(|member| &*member.name == COUNT && member.digest == count)
        });
        untouched && is_as_large
    }
}

/// The decision about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemDecision {
    /// All units are issued, or no more will ever be.
    Settled,
    /// Send this many units; at least 1.
    Send(u64),
    /// Send these units, whose outcome is unknown, once more: the backend deduplicates.
    Repeat(u64),
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
        let decide = |(at, item): (usize, &Item)| match known.get(at).copied().flatten() {
            Some(known) => known.decide(batch, item),
            None => ItemDecision::Send(item.quantity),
        };
        Self { items: batch.items.iter().enumerate().map(decide).collect() }
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
            ItemDecision::Send(units) | ItemDecision::Repeat(units) => Some((at, *units)),
            ItemDecision::Settled
            | ItemDecision::Unknown
            | ItemDecision::InFlight
            | ItemDecision::Reused => None,
        })
    }

    /// Plans to send the unknown units of an item once more.
    pub fn repeat(&mut self, at: usize, units: u64) {
        if let Some(part @ ItemDecision::Unknown) = self.items.get_mut(at) {
            *part = ItemDecision::Repeat(units);
        }
    }

    /// Reports an item that is sent once more.
    pub fn is_repeated(&self, at: usize) -> bool {
        matches!(self.items.get(at), Some(ItemDecision::Repeat(_)))
    }

    /// The upstream body: `body`, from which `batch` was read, without the items that are not
    /// sent, without groups of which nothing is sent, and with the remaining quantities. Repeated
    /// items carry the members of `mark`. Every other byte is kept. `None` when nothing is to be
    /// sent, or `body` is another body.
    pub fn body(
        &self,
        rules: &ItemRules,
        batch: &Batch,
        (body, mark): (&[u8], &[(Pointer, String)]),
    ) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(body).ok()?;
        self.sent().next()?;
        let mut splices = Vec::new();
        for (at, units) in self.sent() {
            let item = batch.items.get(at)?;
            let quantity = match units == item.quantity {
                true => None,
                false => Some((item.quantity_span.clone()?, units.to_string())),
            };
            if self.is_repeated(at) && !mark.is_empty() {
                let span = item.value_span.clone();
                let mut value = text.get(span.clone())?.to_owned();
                if let Some((place, units)) = quantity {
                    let place = place.start.checked_sub(span.start)?..place.end - span.start;
                    value.replace_range(place, &units);
                }
                splices.push(Splice::replaces(span, with_members(&value, mark)));
            } else if let Some((place, units)) = quantity {
                splices.push(Splice::replaces(place, units));
            }
        }
        let is_sent = |at: usize| {
            matches!(self.items.get(at), Some(ItemDecision::Send(_) | ItemDecision::Repeat(_)))
        };
        let element = |at: usize| Some((batch.items.get(at)?.span.clone(), is_sent(at)));
        if batch.groups.is_empty() {
            let elements: Option<Vec<_>> = (0..batch.items.len()).map(element).collect();
            if rules.kind == ListKind::Single && !is_sent(0) {
                return None;
            }
            leave_out(&elements?, &mut splices)?;
            return Some(spliced(text, splices).into_bytes());
        }
        // A group that came without items has nothing to be left out for.
        let stays = |group: &ItemGroup| group.items.is_empty() || group.items.clone().any(is_sent);
        let groups: Vec<_> =
            batch.groups.iter().map(|group| (group.span.clone(), stays(group))).collect();
        leave_out(&groups, &mut splices)?;
        for group in batch.groups.iter().filter(|group| stays(group)) {
            let elements: Option<Vec<_>> = group.items.clone().map(element).collect();
            leave_out(&elements?, &mut splices)?;
        }
        Some(spliced(text, splices).into_bytes())
    }
}

/// Removes elements of a list, each with its place and whether it stays; at least one stays.
///
/// The text between the opening bracket and the first element that stays is kept, less the elements
/// before it; each later one keeps the separator that stood before it.
fn leave_out(elements: &[(Range<usize>, bool)], splices: &mut Vec<Splice<'_>>) -> Option<()> {
    let mut is_first = true;
    for (at, (span, stays)) in elements.iter().enumerate() {
        if *stays {
            is_first = false;
            continue;
        }
        let gone = if is_first {
            span.start..elements.get(at + 1)?.0.start
        } else {
            elements.get(at.checked_sub(1)?)?.0.end..span.end
        };
        splices.push(Splice::replaces(gone, ""));
    }
    Some(())
}
