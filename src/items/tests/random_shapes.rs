//! Random sequences of batches of every shape, against backends that issue at random, lose answers,
//! lose rows and change their order.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::random::Random;
use super::*;

/// Most items of a batch.
const ITEMS: usize = 5;

/// A kind of batch API: its configuration, and its requests and answers.
struct Shape {
    name: &'static str,
    /// `[route.items]` and the tables in it.
    rules: &'static str,
    /// The batch's own key.
    batch: Option<&'static str>,
    /// Units of an item at most; 1: the items have no quantity.
    most: u64,
    /// A batch always has all items, in their order.
    is_fixed: bool,
    /// Writes a batch of these items: number and units.
    request: fn(&[(usize, u64)]) -> Value,
    /// Reads a request as sent: the number and units of each item.
    sent: fn(&Value) -> Vec<(usize, u64)>,
    /// Writes the answer to what was sent: number, units sent, units issued.
    answer: fn(&[(usize, u64, u64)]) -> Value,
    /// Rows may be lost.
    loses_rows: bool,
    /// Numbers of the items that an answer shows as issued; `None`: the answer does not tell.
    successes: fn(&Value) -> Option<Vec<usize>>,
}

fn number(value: &Value) -> usize {
    value.as_str().unwrap()[1..].parse().unwrap()
}

fn id(number: usize) -> String {
    format!("i{number}")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Two arrays of rows, by their meaning.
const TWO_ARRAYS: Shape = Shape {
    name: "two arrays",
    rules: r#"at = "/Entries"
        id = "/Id"
        [route.items.response]
        at = ["/Successful", "/Failed"]
        match = ["id:/Id"]
        issued = { all = { array = "/Successful" } }
        retry = { array = "/Failed" }
        [route.items.render]
        unknown = { item = { "/Code" = "Unknown" } }"#,
    batch: None,
    most: 1,
    is_fixed: false,
    request: |items| {
        let entry = |(number, _): &(usize, u64)| json!({ "Id": id(*number), "Body": "x" });
        json!({ "Entries": items.iter().map(entry).collect::<Vec<_>>() })
    },
    sent: |body| list(&body["Entries"]).map(|entry| (number(&entry["Id"]), 1)).collect(),
    answer: |items| {
        let rows = |wanted: u64| {
            let some = items.iter().filter(|item| item.2 == wanted);
            some.map(|item| json!({ "Id": id(item.0) })).collect::<Vec<_>>()
        };
        json!({ "Successful": rows(1), "Failed": rows(0), "ResponseMetadata": 1 })
    },
    loses_rows: true,
    successes: |answer| Some(list(&answer["Successful"]).map(|row| number(&row["Id"])).collect()),
};

/// Failures only, by the index of what was sent.
const FAILURES_ONLY: Shape = Shape {
    name: "failures only",
    rules: r#"at = "/rows"
        id = "/insertId"
        [route.items.response]
        at = "/insertErrors"
        match = ["index:/index"]
        all_issued = { status = "2xx", pointer = "/kind", equals = "inserted" }
        retry = { array = "/insertErrors" }"#,
    batch: None,
    most: 1,
    is_fixed: false,
    request: |items| {
        let row = |(number, _): &(usize, u64)| json!({ "insertId": id(*number), "json": {} });
        json!({ "rows": items.iter().map(row).collect::<Vec<_>>() })
    },
    sent: |body| list(&body["rows"]).map(|row| (number(&row["insertId"]), 1)).collect(),
    answer: |items| {
        let failed = items.iter().enumerate().filter(|(_, item)| item.2 == 0);
        let rows: Vec<Value> = failed.map(|(at, _)| json!({ "index": at })).collect();
        if rows.is_empty() {
            return json!({ "kind": "inserted" });
        }
        json!({ "kind": "inserted", "insertErrors": rows })
    },
    loses_rows: false,
    successes: |_| None,
};

/// Items with quantities, in groups.
const GROUPS: Shape = Shape {
    name: "groups",
    rules: r#"at = "/orders/*/lines"
        id = "/line"
        quantity = "/units"
        [route.items.response]
        match = ["id:/line"]
        issued = { count = "/units" }"#,
    batch: None,
    most: 3,
    is_fixed: false,
    request: |items| grouped(items.iter().map(|(number, units)| (*number, *units))),
    sent: |body| {
        let lines = list(&body["orders"]).flat_map(|order| list(&order["lines"]));
        lines.map(|line| (number(&line["line"]), line["units"].as_u64().unwrap())).collect()
    },
    answer: |items| grouped(items.iter().map(|item| (item.0, item.2))),
    loses_rows: true,
    successes: |_| None,
};

/// Two orders: the even lines and the odd lines.
fn grouped(items: impl Iterator<Item = (usize, u64)>) -> Value {
    let mut orders: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for (number, units) in items {
        let line = json!({ "line": id(number), "units": units });
        orders.entry(number % 2).or_default().push(line);
    }
    let order = |(order, lines)| json!({ "order": order, "lines": lines });
    json!({ "shop": 7, "orders": orders.into_iter().map(order).collect::<Vec<_>>() })
}

/// A map of items and a map of rows.
const MAPS: Shape = Shape {
    name: "maps",
    rules: r#"at = "/charges"
        map = true
        quantity = "/units"
        [route.items.response]
        issued = { count = "/charged" }"#,
    batch: None,
    most: 3,
    is_fixed: false,
    request: |items| {
        let charge = |(number, units): &(usize, u64)| (id(*number), json!({ "units": units }));
        json!({ "charges": items.iter().map(charge).collect::<serde_json::Map<_, _>>() })
    },
    sent: |body| {
        let charges = body["charges"].as_object().unwrap().iter();
        charges
            .map(|(name, charge)| (name[1..].parse().unwrap(), charge["units"].as_u64().unwrap()))
            .collect()
    },
    answer: |items| {
        let row = |item: &(usize, u64, u64)| (id(item.0), json!({ "charged": item.2 }));
        json!({ "charges": items.iter().map(row).collect::<serde_json::Map<_, _>>() })
    },
    loses_rows: true,
    successes: |_| None,
};

/// An answer that is a job: everything was taken.
const JOB: Shape = Shape {
    name: "job",
    rules: r#"at = "/events"
        id = "/id"
        [route.items.response]
        all_issued = { status = 202 }"#,
    batch: None,
    most: 1,
    is_fixed: false,
    request: |items| {
        let event = |(number, _): &(usize, u64)| json!({ "id": id(*number) });
        json!({ "events": items.iter().map(event).collect::<Vec<_>>() })
    },
    sent: |body| list(&body["events"]).map(|event| (number(&event["id"]), 1)).collect(),
    answer: |items| {
        // A job is taken as a whole or refused as a whole.
        match items.iter().all(|item| item.2 == 1) {
            true => json!({ "job": 1 }),
            false => Value::Null,
        }
    },
    loses_rows: false,
    successes: |_| None,
};

/// Items without ids, told by their positions.
const POSITIONS: Shape = Shape {
    name: "positions",
    rules: r#"at = "/messages"
        id = "position"
    batch = "header:x-batch"
        [route.items.response]
        match = ["position"]
        issued = { all = { pointer = "/ok", equals = true } }
        retry = { pointer = "/ok", equals = false }"#,
    batch: Some("B/1"),
    most: 1,
    is_fixed: true,
    request: |items| {
        let message = |(number, _): &(usize, u64)| json!({ "text": id(*number) });
        json!({ "messages": items.iter().map(message).collect::<Vec<_>>() })
    },
    sent: |body| list(&body["messages"]).map(|it| (number(&it["text"]), 1)).collect(),
    answer: |items| {
        let row = |item: &(usize, u64, u64)| json!({ "ok": item.2 == 1, "was": id(item.0) });
        json!({ "messages": items.iter().map(row).collect::<Vec<_>>() })
    },
    loses_rows: true,
    successes: |answer| {
        let rows = list(&answer["messages"]).filter(|row| row["ok"] == true);
        Some(rows.map(|row| number(&row["was"])).collect())
    },
};

/// The units that the backend issued for each item, ever.
type Issued = HashMap<usize, u64>;

/// A run of one shape.
struct Run<'s> {
    shape: &'s Shape,
    mode: ItemsMode,
    requested: Vec<u64>,
    books: Books,
    issued: Issued,
    answered: usize,
}

impl Run<'_> {
    fn key(&self, number: usize) -> String {
        match self.shape.batch {
            Some(_) => format!("/B~11/{number}"),
            None => id(number),
        }
    }

    fn batch(&self, random: &mut Random) -> String {
        let mut at: Vec<usize> = (0..self.requested.len()).collect();
        if !self.shape.is_fixed {
            for end in (1..at.len()).rev() {
                at.swap(end, random.below(end + 1));
            }
            at.truncate(1 + random.below(at.len()));
        }
        let items: Vec<(usize, u64)> = at.iter().map(|at| (*at, self.requested[*at])).collect();
        (self.shape.request)(&items).to_string()
    }

    /// The backend issues at random, up to what was sent; gives its answer.
    fn issue(&mut self, sent: &str, random: &mut Random) -> (u16, String) {
        let sent = (self.shape.sent)(&serde_json::from_str(sent).unwrap());
        let all = random.one_in(2);
        let mut items: Vec<(usize, u64, u64)> = Vec::new();
        for (number, units) in sent {
            let wanted = usize::try_from(units).unwrap();
            let issued = if all { units } else { random.below(wanted + 1) as u64 };
            items.push((number, units, issued));
        }
        let mut answer = (self.shape.answer)(&items);
        if answer.is_null() {
            return (429, String::new());
        }
        for (number, _, issued) in &items {
            *self.issued.entry(*number).or_default() += issued;
        }
        if self.shape.loses_rows && items.len() > 1 && random.one_in(8) {
            answer = (self.shape.answer)(&items[1..]);
        }
        (if self.shape.name == JOB.name { 202 } else { 200 }, answer.to_string())
    }

    /// What must hold after every step.
    fn check(&self) {
        for number in 0..self.requested.len() {
            let issued = self.issued.get(&number).copied().unwrap_or(0);
            let name = self.shape.name;
            assert!(issued <= self.requested[number], "{name}: {issued} issued of {number}");
            let Some((_, entry)) = self.books.entries.get(&self.key(number)) else {
                assert_eq!(issued, 0, "{name}: {number} is forgotten");
                continue;
            };
            entry.check().unwrap();
            assert!(entry.fulfilled <= issued, "{name}: more is booked than was issued");
            let open = entry.in_flight + entry.unknown;
            assert!(issued <= entry.fulfilled + open, "{name}: {issued} issued, {entry:?}");
        }
    }

    /// An unknown item is never shown as a success.
    fn check_answer(&self, answer: &BatchAnswer) {
        if answer.body.is_empty() {
            return;
        }
        let answer = value(answer);
        for number in (self.shape.successes)(&answer).unwrap_or_default() {
            let entry = &self.books.entries[&self.key(number)].1;
            assert_eq!(entry.fulfilled, 1, "{}: {number} in {answer}", self.shape.name);
        }
    }

    /// Settles what is unknown by what the backend really did.
    fn settle(&mut self) {
        for number in 0..self.requested.len() {
            let issued = self.issued.get(&number).copied().unwrap_or(0);
            let key = self.key(number);
            let Some((_, entry)) = self.books.entries.get_mut(&key) else { continue };
            if entry.unknown > 0 {
                let units = issued - entry.fulfilled;
                let (appended, row, closed) = (Vec::new(), None, false);
                let outcome = ItemOutcome::Issued { units, appended, row, closed };
                *entry = entry.settle(&outcome).unwrap();
            }
        }
    }

    fn steps(&mut self, random: &mut Random) {
        let mut open: Vec<(Call, Option<(u16, String)>)> = Vec::new();
        for _ in 0..25 {
            if random.one_in(8) {
                self.settle();
            }
            if !open.is_empty() && random.one_in(2) {
                let (call, answer) = open.swap_remove(random.below(open.len()));
                self.end(&call, answer);
            } else {
                let body = self.batch(random);
                let claimed = self.books.claim_of(&self.mode, self.shape.batch, &body);
                let Ok(call) = claimed else { continue };
                match call.upstream.clone() {
                    None => self.check_answer(&self.books.replay(&self.mode, &call)),
                    Some(sent) => {
                        let answer = (!random.one_in(10)).then(|| self.issue(&sent, random));
                        open.push((call, answer.filter(|_| !random.one_in(10))));
                    }
                }
            }
            self.check();
        }
        for (call, _) in open {
            self.books.lose(&call);
        }
    }

    fn end(&mut self, call: &Call, answer: Option<(u16, String)>) {
        let Some((status, body)) = answer else { return self.books.lose(call) };
        let (_, answer) = self.books.complete(&self.mode, call, status, &body);
        self.check_answer(&answer);
        self.answered += 1;
    }

    /// The client goes on until nothing is missing.
    fn finish(&mut self, random: &mut Random) {
        let all: Vec<(usize, u64)> = self.requested.iter().copied().enumerate().collect();
        let all = (self.shape.request)(&all).to_string();
        for _ in 0..200 {
            self.settle();
            let call = self.books.claim_of(&self.mode, self.shape.batch, &all).unwrap();
            let Some(sent) = call.upstream.clone() else { break };
            let (status, answer) = self.issue(&sent, random);
            self.end(&call, Some((status, answer)));
            self.check();
        }
        for (number, units) in self.requested.iter().enumerate() {
            let entry = &self.books.entries[&self.key(number)].1;
            assert_eq!((entry.fulfilled, self.issued[&number]), (*units, *units));
        }
    }
}

#[test]
fn in_every_shape_nothing_is_issued_twice_or_forgotten() {
    let mut random = Random::seeded(0x5ba9_5eed);
    for shape in [&TWO_ARRAYS, &FAILURES_ONLY, &GROUPS, &MAPS, &JOB, &POSITIONS] {
        let mut answered = 0;
        for _ in 0..60 {
            let count = 1 + random.below(ITEMS);
            let most = usize::try_from(shape.most).unwrap();
            let mut run = Run {
                shape,
                mode: mode_of(shape.rules),
                requested: (0..count).map(|_| 1 + random.below(most) as u64).collect(),
                books: Books::default(),
                issued: Issued::new(),
                answered: 0,
            };
            run.steps(&mut random);
            run.finish(&mut random);
            answered += run.answered;
        }
        assert!(answered > 60, "{}: {answered} answers: the test saw too little", shape.name);
    }
}
