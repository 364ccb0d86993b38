//! Random sequences of batches of every shape that can be described, against a backend that issues
//! in part, refuses, loses answers and damages them, while calls overlap, the process ends, items
//! change, and somebody settles what is unknown.
//!
//! `ONCEGATE_TEST_SEED` replays a run, `ONCEGATE_TEST_ROUNDS` makes more of them.

mod answers;
mod backend;
mod drawing;
mod list_at;
mod shape;
mod shown;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use self::backend::{Answer, Backend, LISTS};
use self::list_at::Kind;
use self::shape::{Shape, Wanted};
use super::random::Random;
use super::*;
use crate::idempotency::outcome::UnknownReason;

/// A batch on its way.
struct OpenCall {
    call: Call,
    wanted: Vec<Wanted>,
    /// The attempt of each item that was sent.
    attempts: Vec<(String, u64)>,
    /// The backend's answer, if it arrives at all.
    answer: Option<Answer>,
}

/// The client's view of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    units: u64,
    mark: &'static str,
}

/// A run of one shape.
struct Run {
    shape: Shape,
    mode: ItemsMode,
    items: Vec<Item>,
    /// The items as the ledger has them.
    claimed: HashMap<usize, Item>,
    books: Books,
    backend: Backend,
    /// Number of the last attempt of each key.
    attempts: HashMap<String, u64>,
    requests: u64,
    open: Vec<OpenCall>,
    late: Vec<OpenCall>,
    seen: BTreeMap<&'static str, usize>,
}

impl Run {
    fn new(shape: Shape, random: &mut Random) -> Self {
        let mode = mode_of(&shape.rules());
        let most = shape.most();
        let count = if shape.items.kind == Kind::Single { 2 } else { 1 + random.below(6) };
        let item = |_| Item { units: 1 + random.below(most) as u64, mark: "" };
        let items = (0..count).map(item).collect();
        Self {
            shape,
            mode,
            items,
            claimed: HashMap::new(),
            books: Books::default(),
            backend: Backend::default(),
            attempts: HashMap::new(),
            requests: 0,
            open: Vec::new(),
            late: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn entry(&self, number: usize) -> Option<&Ledger> {
        self.books.entries.get(&self.shape.key(number)).map(|(_, entry)| entry)
    }

    /// All items, or some in any order where the shape lets them be told.
    fn draw(&self, random: &mut Random) -> Vec<Wanted> {
        let mut numbers: Vec<usize> = (0..self.items.len()).collect();
        if !self.shape.positions {
            for end in (1..numbers.len()).rev() {
                numbers.swap(end, random.below(end + 1));
            }
            let most = if self.shape.items.kind == Kind::Single { 1 } else { numbers.len() };
            numbers.truncate(1 + random.below(most));
        }
        if self.shape.items.inner.is_some() {
            numbers.sort_by_key(|number| Shape::group(*number));
        }
        if self.shape.positions {
            numbers = self.in_order();
        }
        numbers.into_iter().map(|number| self.wanted(number)).collect()
    }

    /// The items of a batch that always has all of them in this order.
    fn in_order(&self) -> Vec<usize> {
        (0..self.items.len()).collect()
    }

    fn wanted(&self, number: usize) -> Wanted {
        let Item { units, mark } = self.items[number];
        Wanted { number, units, mark, n: format!("n{}.{number}", self.requests) }
    }

    /// The client sends a batch.
    fn send(&mut self, random: &mut Random) {
        self.requests += 1;
        let mut wanted = self.draw(random);
        let changes = random.one_in(8);
        if changes {
            let at = random.below(wanted.len());
            if random.one_in(2) {
                wanted[at].mark = ["", "x", "y"][random.below(3)];
            } else if self.shape.quantities {
                wanted[at].units = 1 + random.below(self.shape.most()) as u64;
            }
        }
        if random.one_in(15) && !self.shape.positions && self.shape.items.kind != Kind::Single {
            let mut twice = wanted.clone();
            let again = twice[random.below(twice.len())].clone();
            twice.push(again);
            if self.shape.items.inner.is_some() {
                twice.sort_by_key(|item| Shape::group(item.number));
            }
            let text = self.shape.request(&twice, random);
            let key = self.shape.batch;
            let refused =
                read_batch(&self.mode.rules, &BatchRequest { batch: key, ..request(&text) });
            let is_twice = matches!(
                refused,
                Err(BatchError::DuplicateItem { .. } | BatchError::DuplicateMember)
            );
            assert!(is_twice, "{text}: {refused:?}");
            self.note("duplicate item");
        }
        let text = self.shape.request(&wanted, random);
        self.claim(wanted, &text, random);
    }

    /// The gateway takes a batch, and does with it what the books say.
    fn claim(&mut self, wanted: Vec<Wanted>, text: &str, random: &mut Random) {
        let before = self.books.clone();
        let known = |item: &Wanted| self.claimed.get(&item.number);
        let asked = |item: &Wanted| Item { units: item.units, mark: item.mark };
        let is_other = |item: &Wanted| known(item).is_some_and(|known| *known != asked(item));
        let is_touched = |item: &Wanted| {
            let entry = self.entry(item.number).unwrap();
            entry.is_open() || self.backend.count(item.number) > 0
        };
        let refused = wanted.iter().any(|item| is_other(item) && is_touched(item));
        let changed: Vec<usize> =
            wanted.iter().filter(|item| is_other(item)).map(|item| item.number).collect();
        let is_busy = wanted
            .iter()
            .any(|item| self.entry(item.number).is_some_and(|entry| entry.in_flight > 0));
        let claimed = self.books.claim_of(&self.mode, self.shape.batch, text);
        let call = match claimed {
            Ok(call) => call,
            Err(BatchDecision::Reused { .. }) => {
                assert!(refused, "{text} is no other batch");
                return self.note("changed item refused");
            }
            Err(BatchDecision::InFlight { .. }) => {
                assert!(is_busy && !refused, "nothing of {text} is in flight");
                return self.note("overlapping batch");
            }
            Err(other) => panic!("{other:?}"),
        };
        assert!(!refused && !is_busy, "{text} was taken");
        for number in changed {
            assert_eq!(before.entries[&self.shape.key(number)].1.fulfilled, 0);
            self.note("changed item");
        }
        let mut sent = HashMap::new();
        for item in &wanted {
            let is_new = self.claimed.get(&item.number) != Some(&asked(item));
            let key = self.shape.key(item.number);
            let entry = before.entries.get(&key).map(|(_, entry)| entry).filter(|_| !is_new);
            let is_whole = self.shape.indivisible && item.number % 2 == 0;
            let left = match entry {
                None => item.units,
                Some(entry) if entry.unknown > 0 || entry.closed => 0,
                Some(entry) if is_whole && entry.fulfilled > 0 => 0,
                Some(entry) => item.units - entry.fulfilled,
            };
            if left > 0 {
                sent.insert(item.number, left);
                self.claimed.insert(item.number, asked(item));
                self.items[item.number] = asked(item);
            }
        }
        let Some(upstream) = call.upstream.clone() else {
            assert!(sent.is_empty(), "{sent:?} of {text} is missing");
            self.note("replay");
            let answer = self.books.replay(&self.mode, &call);
            return self.check_answer((&call, &wanted), (&answer, None));
        };
        let upstream_value: Value = serde_json::from_str(&upstream).unwrap();
        assert_eq!(upstream_value, self.shape.expected(text, &sent), "{upstream} of {text}");
        let mut attempts = Vec::new();
        for (at, _) in call.plan.sent() {
            let key = call.batch.items[at].key.to_string();
            let attempt = self.attempts.entry(key.clone()).or_default();
            *attempt += 1;
            attempts.push((key, *attempt));
        }
        self.note("sent");
        let arrived = !random.one_in(12);
        let answer = arrived.then(|| self.backend.answer(&self.shape, &upstream, (random, false)));
        let answer = answer.filter(|_| !random.one_in(10));
        self.open.push(OpenCall { call, wanted, attempts, answer });
    }

    /// A call ends: with its answer, without one, or with one that comes later.
    fn end(&mut self, open: OpenCall, random: &mut Random) {
        let is_late = random.one_in(6);
        let Some(answer) = open.answer.clone().filter(|_| !is_late) else {
            self.books.lose(&open.call);
            self.note("lost answer");
            return self.late.push(open);
        };
        let Answer { status, body, trace } = answer;
        let (joined, answer) = self.books.complete(&self.mode, &open.call, status, &body);
        self.note("answer");
        self.keep_envelope(&open.attempts, (&joined, trace), (status, &body));
        if joined.shape == ResponseShape::Unreadable {
            // The client gets it as it came.
            return self.note("unreadable answer");
        }
        let has_nothing_to_add = answer.body == body.as_bytes()
            && self.books.of(&open.call).iter().all(|entry| entry.is_blank());
        if joined.shape == ResponseShape::Refused && has_nothing_to_add {
            return self.note("refusal");
        }
        self.check_answer((&open.call, &open.wanted), (&answer, Some((&joined, trace))));
        // The next retry reads the same.
        if !self.shape.delta {
            let again = self.books.replay(&self.mode, &open.call);
            let expected = self.expected((&open.call, &open.wanted), None);
            let (first, again) = (value(&answer), value(&again));
            let rows = |body: &Value| shown::rows(&self.shape, &expected, body);
            assert_eq!(rows(&first), rows(&again), "{first} is {again} on a retry");
        }
    }

    /// Keeps what stands beside the rows with the items of a call.
    fn keep_envelope(
        &mut self,
        attempts: &[(String, u64)],
        (joined, trace): (&BatchOutcome, u64),
        (status, body): (u16, &str),
    ) {
        let Some(text) = joined.envelope(body.as_bytes(), 1 << 10) else { return };
        let envelope =
            serde_json::json!({ "at": trace, "status": status, "body": text, "headers": [] });
        let envelope: Arc<Envelope> = Arc::new(serde_json::from_value(envelope).unwrap());
        for (key, attempt) in attempts {
            if self.attempts[key] == *attempt {
                self.books.entries.get_mut(key).unwrap().1.envelope = Some(envelope.clone());
            }
        }
    }

    /// The answer of a lost call arrives after all, or the process was told of its loss too early.
    fn arrive(&mut self, open: OpenCall) {
        let OpenCall { call, attempts, answer: Some(Answer { status, body, .. }), .. } = &open
        else {
            return;
        };
        let headers = HeaderView::Lines(&[]);
        let response = BackendResponse { status: *status, headers, body: body.as_bytes() };
        let joined = join(&self.mode.rules, &self.mode.outcome, &call.batch, &call.plan, &response);
        for ((at, _), (key, attempt)) in call.plan.sent().zip(attempts) {
            let outcome = joined.outcomes[at].as_ref().unwrap();
            let entry = &mut self.books.entries.get_mut(key).unwrap().1;
            if self.attempts[key] == *attempt && entry.unknown > 0 {
                *entry = entry.conclude(outcome).unwrap();
            }
        }
        self.note("late answer");
    }

    /// Somebody finds out what the backend really did, for some of the unknown items.
    fn settle(&mut self, random: &mut Random, all: bool) {
        for number in 0..self.items.len() {
            let key = self.shape.key(number);
            let Some((_, entry)) = self.books.entries.get_mut(&key) else { continue };
            if entry.unknown == 0 || !(all || random.one_in(2)) {
                continue;
            }
            let issued = self.backend.issued.get(&number).map_or(&[][..], Vec::as_slice);
            let units = issued.len() as u64 - entry.fulfilled;
            let mut appended = Vec::new();
            for (list, at) in LISTS.into_iter().enumerate().filter(|_| self.shape.lists()) {
                let shown = elements(&entry.outcomes, at);
                let missing = issued.iter().filter(|it| it.0 == list && !shown.contains(&it.1));
                let elements = missing.map(|it| it.1.clone()).collect();
                appended.push(OutcomeList { at: at.to_owned(), elements });
            }
            let outcome = ItemOutcome::Issued { units, appended, row: None, closed: false };
            *entry = entry.settle(&outcome).unwrap();
            self.note("settled item");
        }
    }

    /// The process ends: calls in flight are lost, and the records are what was stored.
    fn crash(&mut self) {
        for open in std::mem::take(&mut self.open) {
            for (key, _) in &open.attempts {
                let entry = &mut self.books.entries.get_mut(key).unwrap().1;
                *entry = entry.lose(UnknownReason::ProcessEnded).unwrap();
            }
        }
        self.late.clear();
        self.note("crash");
    }

    /// Checks the invariants, after every step.
    fn check(&self) {
        for number in 0..self.items.len() {
            let issued = self.backend.count(number);
            let units = self.claimed.get(&number).map_or(0, |item| item.units);
            assert!(issued <= units, "{issued} of {units} issued of {number}");
            let Some(entry) = self.entry(number) else {
                assert_eq!(issued, 0, "{number} is forgotten");
                continue;
            };
            entry.check().unwrap();
            assert_eq!(entry.requested, units);
            assert!(entry.fulfilled <= issued, "{number}: more is booked than was issued");
            let open = entry.in_flight + entry.unknown;
            assert!(issued <= entry.fulfilled + open, "{number}: {issued} issued, {entry:?}");
            for (list, at) in LISTS.into_iter().enumerate().filter(|_| self.shape.lists()) {
                let coupons = self.backend.issued.get(&number).map_or(&[][..], Vec::as_slice);
                let issued: Vec<&str> =
                    coupons.iter().filter(|it| it.0 == list).map(|it| it.1.as_str()).collect();
                let booked = elements(&entry.outcomes, at);
                let is_kept = booked.iter().all(|it| issued.contains(&it.as_str()));
                assert!(is_kept, "{number}: {booked:?} of {issued:?}");
                // What was issued without a row is nowhere to be read.
                if open == 0 && !self.shape.all_issued {
                    assert_eq!(booked, issued, "{number}: an outcome is forgotten");
                }
            }
        }
    }

    fn steps(&mut self, random: &mut Random) {
        for _ in 0..40 {
            match random.below(16) {
                0 | 1 => self.settle(random, false),
                2 if random.one_in(2) => self.crash(),
                3 if !self.late.is_empty() => {
                    let late = self.late.swap_remove(random.below(self.late.len()));
                    self.arrive(late);
                }
                4..12 if !self.open.is_empty() => {
                    let open = self.open.swap_remove(random.below(self.open.len()));
                    self.end(open, random);
                }
                _ => self.send(random),
            }
            self.check();
        }
        self.crash();
    }

    /// The backend answers honestly, and the client goes on until nothing is missing.
    fn finish(&mut self, random: &mut Random) {
        self.settle(random, true);
        let is_single = self.shape.items.kind == Kind::Single;
        for round in 0..40 {
            self.requests += 1;
            let mut numbers = self.in_order();
            if is_single {
                numbers = vec![round % self.items.len()];
            }
            if self.shape.items.inner.is_some() && !self.shape.positions {
                numbers.sort_by_key(|number| Shape::group(*number));
            }
            let wanted: Vec<Wanted> = numbers.iter().map(|number| self.wanted(*number)).collect();
            let text = self.shape.request(&wanted, random);
            let call = self.books.claim_of(&self.mode, self.shape.batch, &text).unwrap();
            for item in &wanted {
                let Wanted { number, units, mark, .. } = *item;
                self.claimed.entry(number).or_insert(Item { units, mark });
            }
            let Some(sent) = call.upstream.clone() else {
                if self.claimed.len() == self.items.len() && !is_single {
                    break;
                }
                continue;
            };
            let Answer { status, body, trace } =
                self.backend.answer(&self.shape, &sent, (random, true));
            let (joined, answer) = self.books.complete(&self.mode, &call, status, &body);
            self.check_answer((&call, &wanted), (&answer, Some((&joined, trace))));
            self.settle(random, true);
            self.check();
        }
        for (number, item) in self.items.iter().enumerate() {
            let entry = self.entry(number).unwrap();
            let is_left = self.shape.indivisible && number % 2 == 0 && entry.fulfilled > 0;
            let is_done = entry.closed || is_left || entry.fulfilled == item.units;
            assert!(is_done, "{number} does not end: {entry:?}");
            assert_eq!(entry.fulfilled, self.backend.count(number));
        }
    }
}

/// The entries that random batches of so many shapes leave.
pub(crate) fn entries_left(shapes: usize) -> Vec<Ledger> {
    let mut random = Random::seeded(0x5ea1_5eed);
    let mut entries = Vec::new();
    for _ in 0..shapes {
        let mut run = Run::new(Shape::drawn(&mut random), &mut random);
        run.steps(&mut random);
        entries.extend(run.books.entries.into_values().map(|(_, entry)| entry));
    }
    entries
}

/// Rounds of a test, by the environment or as usual.
fn rounds(usual: usize) -> usize {
    std::env::var("ONCEGATE_TEST_ROUNDS").ok().and_then(|it| it.parse().ok()).unwrap_or(usual)
}

#[test]
fn in_any_shape_nothing_is_issued_twice_or_forgotten() {
    let mut random = Random::seeded(0x0a17_5eed);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let rounds = rounds(1000);
    for round in 0..rounds {
        let shape = Shape::drawn(&mut random);
        let story = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut run = Run::new(shape.clone(), &mut random);
            run.steps(&mut random);
            run.finish(&mut random);
            run
        }));
        let Ok(run) = story else { panic!("round {round}: {shape:#?}\n{}", shape.rules()) };
        let Run { backend, seen: steps, .. } = run;
        for (what, times) in steps.into_iter().chain(backend.faults) {
            *seen.entry(what.to_owned()).or_default() += times;
        }
        for what in shape.traits() {
            *seen.entry(what).or_default() += 1;
        }
    }
    println!("{seen:#?}");
    let rare: Vec<_> = seen.iter().filter(|(_, times)| **times < 5).collect();
    assert!(
        rounds < 1000 || (rare.is_empty() && seen.len() > 70),
        "the test saw too little: {rare:?}"
    );
}
