//! Random sequences of batches against a backend with limits that loses answers, forgets ids,
//! reorders and doubles rows.

use std::collections::HashMap;

use super::*;
use crate::items::edit::{Edit, edit};
use crate::json::Pointer;

pub(super) struct Random(u64);

impl Random {
    /// From this seed, or from the one that is to be replayed; it is printed.
    pub(super) fn seeded(usual: u64) -> Self {
        let seed = std::env::var("ONCEGATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(usual);
        println!("ONCEGATE_TEST_SEED={seed}");
        Self(seed | 1)
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, most: usize) -> bool {
        self.below(most) == 0
    }
}

/// What the backend did: for each id the coupons it issued, ever.
#[derive(Default)]
struct Backend {
    issued: HashMap<String, Vec<String>>,
    next: u64,
}

impl Backend {
    /// Issues at random up to what was sent; gives the answer.
    fn issue(&mut self, sent: &str, random: &mut Random) -> String {
        let sent: serde_json::Value = serde_json::from_str(sent).unwrap();
        // Either all rows have ids, in any order, or they stand in the order of what was sent.
        let ids = !random.one_in(3);
        let mut rows = Vec::new();
        for item in sent["rewards"].as_array().unwrap() {
            let wanted = usize::try_from(item["quantity"].as_u64().unwrap_or(1)).unwrap();
            let units = random.below(wanted + 1);
            let coupons: Vec<String> = (0..units)
                .map(|_| {
                    self.next += 1;
                    format!("{}.10", self.next)
                })
                .collect();
            let id = item["requestId"].as_str().unwrap();
            self.issued.entry(id.to_owned()).or_default().extend(coupons.clone());
            let id = if ids { format!("\"requestId\":\"{id}\",") } else { String::new() };
            let coupons = match coupons.as_slice() {
                [] if random.one_in(2) => String::from("null"),
                coupons => format!("[{}]", coupons.join(" , ")),
            };
            let count = match random.below(3) {
                0 => format!("\"{units}\""),
                _ => units.to_string(),
            };
            rows.push(format!("{{{id}\"quantity\":{count},\"vendor\":{coupons},\"own\":1e9}}"));
        }
        if ids {
            for at in (1..rows.len()).rev() {
                rows.swap(at, random.below(at + 1));
            }
            match random.below(12) {
                0 => drop(rows.remove(random.below(rows.len()))),
                1 => rows.push(rows[0].clone()),
                2 => rows.push(String::from("{\"requestId\":\"nobody\",\"quantity\":9}")),
                _ => {}
            }
        } else if random.one_in(12) {
            rows.remove(random.below(rows.len()));
        }
        format!("{{\"rewards\":[{}]}}", rows.join(","))
    }
}

fn batch_of(random: &mut Random, requested: &[u64]) -> String {
    let mut at: Vec<usize> = (0..requested.len()).collect();
    for end in (1..at.len()).rev() {
        at.swap(end, random.below(end + 1));
    }
    at.truncate(1 + random.below(at.len()));
    let items: Vec<String> = at
        .iter()
        .map(|&at| format!("{{\"requestId\":\"i{at}\", \"quantity\":{}}}", requested[at]))
        .collect();
    format!("{{\"rewards\":[ {} ]}}", items.join(" ,\n"))
}

/// What must hold after every step; `open` are the items of calls in flight.
fn check_books(books: &Books, backend: &Backend, requested: &[u64]) {
    for (id, (_, entry)) in &books.entries {
        entry.check().unwrap();
        let issued = backend.issued.get(id).map_or(0, Vec::len) as u64;
        let at: usize = id[1..].parse().unwrap();
        assert!(issued <= requested[at], "{id}: {issued} issued of {}", requested[at]);
        assert!(entry.fulfilled <= issued, "{id}: more is booked than was issued");
        let open = entry.in_flight + entry.unknown;
        assert!(issued <= entry.fulfilled + open, "{id}: {issued} issued, {entry:?}");
    }
}

/// The upstream body asks for just what is left of each item that is known, and for no other.
fn check_sent(call: &Call, before: &Books) {
    let mut sent: HashMap<String, u64> = HashMap::new();
    if let Some(body) = &call.upstream {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        for item in body["rewards"].as_array().unwrap() {
            let id = item["requestId"].as_str().unwrap().to_owned();
            assert_eq!(sent.insert(id, item["quantity"].as_u64().unwrap()), None);
        }
    }
    for item in &call.batch.items {
        let left = match before.entries.get(&*item.id) {
            None => item.quantity,
            Some((_, entry)) if entry.unknown > 0 => 0,
            Some((_, entry)) => entry.requested - entry.fulfilled,
        };
        assert_eq!(sent.remove(&*item.id).unwrap_or(0), left);
    }
    assert!(sent.is_empty());
}

/// The cumulative answer has a row for each item in its order, and every outcome once.
fn check_answer(call: &Call, books: &Books, backend: &Backend, answer: &BatchAnswer) {
    let document = crate::json::Document::parse(&answer.body).unwrap();
    let at = crate::json::Pointer::parse("/rewards").unwrap();
    let rows: Vec<_> = document.find(&at).unwrap().elements().collect();
    assert_eq!(rows.len(), call.batch.items.len());
    for ((item, entry), row) in call.batch.items.iter().zip(books.of(call)).zip(rows) {
        let vendor: Vec<&str> = row
            .child("vendor")
            .map(|list| list.elements().map(|element| element.raw()).collect())
            .unwrap_or_default();
        assert_eq!(vendor, elements(&entry.outcomes, "/vendor"));
        assert_eq!(vendor.len() as u64, entry.fulfilled);
        let issued = backend.issued.get(&*item.id).map_or(&[][..], Vec::as_slice);
        let mut twice = vendor.clone();
        twice.sort_unstable();
        twice.dedup();
        assert_eq!(twice.len(), vendor.len(), "an outcome stands twice");
        assert!(vendor.iter().all(|coupon| issued.iter().any(|it| it == coupon)));
        if entry.unknown + entry.in_flight == 0 {
            assert_eq!(vendor.len(), issued.len(), "an outcome is forgotten");
        }
        let count = row.child("quantity").unwrap().as_id().unwrap();
        assert_eq!(count.parse::<u64>().unwrap(), entry.fulfilled);
        let requested = row.child("requestedQuantity").unwrap().as_id().unwrap();
        assert_eq!(requested.parse::<u64>().unwrap(), item.quantity);
    }
}

/// Settles what is unknown by what the backend really did.
fn settle(books: &mut Books, backend: &Backend) {
    for (id, (_, entry)) in books.entries.iter_mut().filter(|(_, (_, entry))| entry.unknown > 0) {
        let issued = backend.issued.get(id).map_or(&[][..], Vec::as_slice);
        let booked = elements(&entry.outcomes, "/vendor").to_vec();
        let missing: Vec<String> =
            issued.iter().filter(|coupon| !booked.contains(coupon)).cloned().collect();
        let outcome = ItemOutcome::Issued {
            units: missing.len() as u64,
            appended: vec![OutcomeList { at: "/vendor".into(), elements: missing }],
            row: None,
            closed: false,
        };
        *entry = entry.settle(&outcome).unwrap();
    }
}

#[test]
fn whatever_happens_nothing_is_issued_twice_or_forgotten() {
    let mut random = Random::seeded(0x1736_5eed);
    let mode = capillary();
    let (mut answered, mut lost, mut replayed, mut finished) = (0, 0, 0, 0);
    for _ in 0..400 {
        let requested: Vec<u64> =
            (0..=random.below(5)).map(|_| 1 + random.below(4) as u64).collect();
        let (mut books, mut backend) = (Books::default(), Backend::default());
        let mut open: Vec<(Call, Option<String>)> = Vec::new();
        for _ in 0..30 {
            if random.one_in(8) {
                settle(&mut books, &backend);
            }
            // A call in flight ends: answered, lost after it ran, or never arrived.
            if !open.is_empty() && random.one_in(2) {
                let (call, answer) = open.swap_remove(random.below(open.len()));
                match answer {
                    Some(answer) => {
                        let status = [200, 400, 503][random.below(3)];
                        let (_, answer) = books.complete(&mode, &call, status, &answer);
                        check_answer(&call, &books, &backend, &answer);
                        answered += 1;
                    }
                    None => {
                        books.lose(&call);
                        lost += 1;
                    }
                }
                check_books(&books, &backend, &requested);
                continue;
            }
            let before = books.clone();
            let Ok(call) = books.claim(&mode, &batch_of(&mut random, &requested)) else { continue };
            check_sent(&call, &before);
            match &call.upstream {
                None => {
                    check_answer(&call, &books, &backend, &books.replay(&mode, &call));
                    replayed += 1;
                }
                Some(sent) => {
                    let answer = (!random.one_in(10)).then(|| backend.issue(sent, &mut random));
                    let answer = answer.filter(|_| !random.one_in(10));
                    open.push((call, answer));
                }
            }
            check_books(&books, &backend, &requested);
        }
        // All calls end, everything is settled, and the client goes on until nothing is missing.
        for (call, _) in open {
            books.lose(&call);
        }
        let all: Vec<String> = requested
            .iter()
            .enumerate()
            .map(|(at, units)| format!("{{\"requestId\":\"i{at}\",\"quantity\":{units}}}"))
            .collect();
        let all = format!("{{\"rewards\":[{}]}}", all.join(","));
        for _ in 0..200 {
            settle(&mut books, &backend);
            let call = books.claim(&mode, &all).unwrap();
            let Some(sent) = &call.upstream else { break };
            let answer = backend.issue(sent, &mut random);
            books.complete(&mode, &call, 200, &answer);
        }
        for (at, units) in requested.iter().enumerate() {
            let id = format!("i{at}");
            assert_eq!(backend.issued[&id].len() as u64, *units, "{id} is short or over");
            assert_eq!(elements(&books.entries[&id].1.outcomes, "/vendor"), backend.issued[&id]);
            finished += 1;
        }
    }
    assert!(
        answered > 1000 && lost > 100 && replayed > 100 && finished > 400,
        "{answered} {lost} {replayed} {finished}: the test saw too little"
    );
}

#[test]
fn changes_made_together_are_those_made_one_by_one() {
    let mut random = Random::seeded(0xed17_5eed);
    let texts = [
        r"{}",
        r#"{"a":1}"#,
        r#" { "a" : {"b":[1, 2] ,"c":{}}, "b": "x" } "#,
        r#"{"b":null,"c":{"a":{"a":0}},"a":[{"a":1},{}]}"#,
        "[]",
        "7",
    ];
    let values = ["1", "[]", r#"{"a":2}"#, r#"{"c":{"b":3}}"#, "null", "\"y\""];
    let mut passes = 0;
    for _ in 0..50_000 {
        let pointers: Vec<Pointer> = (0..=random.below(4))
            .map(|_| {
                let tokens = (0..random.below(4)).map(|_| ["a", "b", "c", "0"][random.below(4)]);
                let text: String = tokens.flat_map(|token| ["/", token]).collect();
                Pointer::parse(&text).unwrap()
            })
            .collect();
        let changes: Vec<Edit<'_>> =
            pointers.iter().map(|at| Edit::new(at, values[random.below(values.len())])).collect();
        let text = texts[random.below(texts.len())];
        let one_by_one = changes
            .iter()
            .fold(text.to_owned(), |text, change| edit(&text, std::slice::from_ref(change)));
        assert_eq!(edit(text, &changes), one_by_one, "{changes:?} to {text}");
        passes += usize::from(one_by_one != text);
    }
    assert!(passes > 20_000, "only {passes} texts changed: the test saw too little");
}

#[test]
fn no_answer_makes_the_gateway_panic_or_book_more_than_was_sent() {
    let mut random = Random::seeded(0xbad_5eed);
    let body = r#"{"rewards":[{"requestId":"a","rewardId":1,"quantity":2},{"requestId":"b","rewardId":2,"quantity":3}]}"#;
    let sample = r#"{"status":{"code":200},"rewards":[{"requestId":"a","rewardId":1,"quantity":"1","intouch":[1]},{"requestId":"b","rewardId":2,"quantity":3,"vendor":[1,2,3],"status":{"code":8003}}]}"#;
    let alphabet = b"{}[]\",:0123ab/\\ nul";
    let (mode, mut booked) = (capillary(), 0);
    for _ in 0..20_000 {
        let mut answer = sample.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(answer.len());
            match random.below(3) {
                0 => answer[at] = alphabet[random.below(alphabet.len())],
                1 => drop(answer.remove(at)),
                _ => answer.insert(at, alphabet[random.below(alphabet.len())]),
            }
        }
        let mut books = Books::default();
        let call = books.claim(&mode, body).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (joined, answer) = books.complete(&mode, &call, 200, &answer);
        for (_, entry) in books.entries.values() {
            entry.check().unwrap();
        }
        if joined.shape == ResponseShape::Rows {
            assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok());
            booked += 1;
        }
    }
    assert!(booked > 1000, "only {booked} answers had rows: the test saw too little");
}
