//! A map of bounded weight: what was not asked for since it was last looked at leaves first.
//!
//! Everything stands in the order in which it came. When room is needed, what came first leaves, or
//! goes back to the end if it was asked for meanwhile (the "second chance" of page replacement). So
//! a look costs a lock and a bit, and what is only passing through pushes out nothing in use.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::idempotency::RecordId;
use crate::idempotency::record::BuildIdHasher;

/// Parts with a lock each, so that threads seldom meet.
const PARTS: usize = 8;

/// Places in the order beyond twice what is kept, before those of entries that were removed are
/// cleared away.
const SLACK: usize = 64;

/// The map. Values are cheap to clone.
#[derive(Debug)]
pub(super) struct Shelf<V> {
    parts: [Mutex<Part<V>>; PARTS],
}

#[derive(Debug)]
struct Part<V> {
    entries: HashMap<RecordId, Entry<V>, BuildIdHasher>,
    /// Who stands where. A place whose ticket is not its entry's belongs to one that was removed.
    order: VecDeque<(RecordId, u64)>,
    next_ticket: u64,
    weight: u64,
    capacity: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: u64,
    ticket: u64,
    /// Asked for since it came, or since it went back to the end.
    used: bool,
}

impl<V: Clone> Shelf<V> {
    /// One that keeps at most `capacity`.
    pub(super) fn new(capacity: u64) -> Self {
        let part = |_| {
            Mutex::new(Part {
                entries: HashMap::default(),
                order: VecDeque::new(),
                next_ticket: 0,
                weight: 0,
                capacity: capacity / PARTS as u64,
            })
        };
        Self { parts: std::array::from_fn(part) }
    }

    fn part(&self, id: &RecordId) -> MutexGuard<'_, Part<V>> {
        // The map inside hashes by other bytes of the id.
        let part = &self.parts[usize::from(id.as_bytes()[15]) % PARTS];
        // Nothing that can panic happens between two changes that belong together.
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value under this name.
    pub(super) fn get(&self, id: &RecordId) -> Option<V> {
        let mut part = self.part(id);
        let entry = part.entries.get_mut(id)?;
        entry.used = true;
        Some(entry.value.clone())
    }

    /// Puts a value in, in the place of the one with the same name.
    pub(super) fn insert(&self, id: RecordId, value: V, weight: u64) {
        let mut part = self.part(&id);
        part.remove(&id);
        if weight > part.capacity {
            return;
        }
        part.make_room(weight);
        let ticket = part.next_ticket;
        part.next_ticket += 1;
        part.weight += weight;
        part.order.push_back((id, ticket));
        part.entries.insert(id, Entry { value, weight, ticket, used: false });
    }

    /// Takes the value under this name out.
    pub(super) fn remove(&self, id: &RecordId) {
        self.part(id).remove(id);
    }

    /// The weight of all values.
    pub(super) fn weight(&self) -> u64 {
        let weights = self.parts.iter().map(|part| {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            part.weight
        });
        weights.sum()
    }
}

impl<V> Part<V> {
    fn remove(&mut self, id: &RecordId) {
        let Some(entry) = self.entries.remove(id) else { return };
        self.weight -= entry.weight;
        if self.order.len() > 2 * self.entries.len() + SLACK {
            let entries = &self.entries;
            self.order.retain(|(id, ticket)| {
                entries.get(id).is_some_and(|entry| entry.ticket == *ticket)
            });
        }
    }

    /// Lets values go until one of this weight fits. Ends: each turn takes a place away or the mark
    /// of use off an entry.
    fn make_room(&mut self, weight: u64) {
        while self.weight + weight > self.capacity {
            let Some((id, ticket)) = self.order.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.ticket == ticket)
            else {
                continue;
            };
            if std::mem::take(&mut entry.used) {
                self.order.push_back((id, ticket));
            } else {
                self.weight -= entry.weight;
                self.entries.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    fn filled(capacity: u64, names: std::ops::Range<u64>, weight: u64) -> Shelf<u64> {
        let shelf = Shelf::new(capacity * PARTS as u64);
        names.for_each(|n| shelf.insert(name(n), n, weight));
        shelf
    }

    /// Names of one and the same part.
    fn name(n: u64) -> RecordId {
        let mut bytes = *samples::id(n).as_bytes();
        bytes[1..9].copy_from_slice(&n.to_le_bytes());
        bytes[15] = 0;
        RecordId::from_bytes(bytes)
    }

    fn kept(shelf: &Shelf<u64>, names: std::ops::Range<u64>) -> Vec<u64> {
        let part = shelf.part(&name(0));
        names.filter(|n| part.entries.contains_key(&name(*n))).collect()
    }

    #[test]
    fn what_came_first_leaves_first() {
        let shelf = filled(100, 0..15, 10);
        assert_eq!(kept(&shelf, 0..15), (5..15).collect::<Vec<_>>());
        assert_eq!(shelf.weight(), 100);
    }

    #[test]
    fn what_is_in_use_stays_while_others_pass_through() {
        let shelf = filled(100, 0..10, 10);
        for n in 10..1000 {
            assert_eq!(shelf.get(&name(3)), Some(3), "{n}");
            shelf.insert(name(n), n, 10);
        }
        assert_eq!(kept(&shelf, 0..10), [3]);
        for n in 1000..1020 {
            shelf.insert(name(n), n, 10);
        }
        assert_eq!(shelf.get(&name(3)), None, "nobody asked for it any more");
    }

    #[test]
    fn everything_in_use_still_makes_room() {
        let shelf = filled(100, 0..10, 10);
        (0..10).for_each(|n| assert!(shelf.get(&name(n)).is_some()));
        shelf.insert(name(10), 10, 95);
        assert_eq!(kept(&shelf, 0..11), [10]);
        assert_eq!(shelf.weight(), 95);
    }

    #[test]
    fn a_value_takes_the_place_of_the_one_with_its_name() {
        let shelf = filled(100, 0..5, 10);
        shelf.insert(name(2), 22, 60);
        assert_eq!(shelf.get(&name(2)), Some(22));
        assert_eq!(shelf.weight(), 100);
        shelf.insert(name(2), 23, 101);
        assert_eq!(shelf.get(&name(2)), None, "too heavy, and the old one no longer holds");
        assert_eq!(shelf.weight(), 40);
    }

    #[test]
    fn coming_and_going_leaves_nothing_behind() {
        let shelf = filled(100, 0..1, 10);
        for _ in 0..10_000 {
            shelf.insert(name(1), 1, 10);
            shelf.remove(&name(1));
        }
        let part = shelf.part(&name(0));
        assert!(part.order.len() <= 2 * part.entries.len() + SLACK, "{}", part.order.len());
        assert_eq!(part.weight, 10);
    }
}
