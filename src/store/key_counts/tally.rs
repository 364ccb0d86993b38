//! The running count of a shard, and the claims and removals that happen meanwhile.
//!
//! A page is read before it is added, and a claim is durable before it is known to be: what happens
//! in between may be in the page or not. So the ids of claims under way are kept, and those that
//! ended since the last page; each id is then counted once.

use std::collections::{HashMap, HashSet};

use crate::idempotency::{RecordId, TenantId};
use crate::store::ListPosition;

/// A running count, and the claims under way.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pass: Option<Pass>,
    /// The number of claims of each id.
    under_way: HashMap<RecordId, u32>,
    /// Ids under way that a finished count has found.
    found_early: HashSet<RecordId>,
}

/// A count of a shard, down to a position: the newest records come first.
#[derive(Debug)]
struct Pass {
    shard: u8,
    position: Option<ListPosition>,
    /// Keys found for each caller that was known when the pass began.
    found: HashMap<TenantId, u64>,
    /// Ids under way that were found.
    found_early: HashSet<RecordId>,
    /// Ids behind the position that were stored, or removed, since the last page.
    stored: HashMap<RecordId, (ListPosition, TenantId)>,
    removed: HashSet<RecordId>,
}

impl Pass {
    fn has_passed(&self, at: &ListPosition) -> bool {
        self.position.is_some_and(|position| *at >= position)
    }

    fn add(&mut self, tenant: &TenantId) {
        if let Some(found) = self.found.get_mut(tenant) {
            *found += 1;
        }
    }
}

impl Tally {
    /// Begins a count for the callers of `found`.
    pub(super) fn begin(&mut self, shard: u8, found: HashMap<TenantId, u64>) {
        self.pass = Some(Pass {
            shard,
            position: None,
            found,
            found_early: HashSet::new(),
            stored: HashMap::new(),
            removed: HashSet::new(),
        });
    }

    /// Adds a page, which was read after the page before was added.
    pub(super) fn page(&mut self, page: &[(RecordId, TenantId)], last: ListPosition) {
        let Some(pass) = &mut self.pass else { return };
        let mut stored = std::mem::take(&mut pass.stored);
        let removed = std::mem::take(&mut pass.removed);
        for (id, tenant) in page {
            stored.remove(id);
            if removed.contains(id) {
                continue;
            }
            pass.add(tenant);
            if self.under_way.contains_key(id) {
                pass.found_early.insert(*id);
            }
        }
        // Stored after the page was read. What lies behind it is in a later page.
        for (_, tenant) in stored.values().filter(|(at, _)| *at >= last) {
            pass.add(tenant);
        }
        pass.position = Some(last);
    }

    /// Ends the count, and returns the keys of each caller.
    pub(super) fn finish(&mut self) -> HashMap<TenantId, u64> {
        let Some(pass) = self.pass.take() else { return HashMap::new() };
        self.found_early.extend(pass.found_early);
        pass.found
    }

    /// Ends the count without a result.
    pub(super) fn abandon(&mut self) {
        self.pass = None;
    }

    /// Follows claims from before their first write.
    pub(super) fn begin_claims(&mut self, ids: &[RecordId]) {
        for id in ids {
            *self.under_way.entry(*id).or_default() += 1;
        }
    }

    /// Ends claims, made or lost.
    pub(super) fn end_claims(&mut self, ids: &[RecordId]) {
        for id in ids {
            let Some(claims) = self.under_way.get_mut(id) else { continue };
            *claims -= 1;
            if *claims == 0 {
                self.under_way.remove(id);
                self.found_early.remove(id);
                if let Some(pass) = &mut self.pass {
                    pass.found_early.remove(id);
                }
            }
        }
    }

    /// Adds claimed keys to the running count; returns the number that the last one lacks.
    pub(super) fn kept(&mut self, tenant: &TenantId, stored: &[ListPosition]) -> u64 {
        let mut lacking = 0;
        for at in stored {
            let id = &at.id;
            if let Some(pass) = self.pass.as_mut().filter(|pass| pass.shard == id.shard())
                && !pass.found_early.remove(id)
            {
                match pass.has_passed(at) {
                    true => pass.add(tenant),
                    false => {
                        pass.removed.remove(id);
                        pass.stored.insert(*id, (*at, *tenant));
                    }
                }
            }
            lacking += u64::from(!self.found_early.remove(id));
        }
        lacking
    }

    /// Takes a removed key off the running count.
    pub(super) fn removed(&mut self, tenant: &TenantId, at: &ListPosition) {
        let id = &at.id;
        let Some(pass) = self.pass.as_mut().filter(|pass| pass.shard == id.shard()) else {
            return;
        };
        if !pass.has_passed(at) {
            pass.stored.remove(id);
            pass.removed.insert(*id);
        } else if let Some(found) = pass.found.get_mut(tenant) {
            *found = found.saturating_sub(1);
        }
    }
}
