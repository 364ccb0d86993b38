//! A backend of any shape: what it issues is true, and its answers lose and damage what can be lost
//! and damaged in a way that a reader can notice.

use std::collections::{BTreeMap, HashMap};

use super::super::random::Random;
use super::list_at::Kind;
use super::shape::{By, IDS, Says, Sent, Shape, spelled};

/// An issued unit: the list in which a row shows it, and its text there.
pub(super) type Coupon = (usize, String);

/// The lists of a row that grow with each unit.
pub(super) const LISTS: [&str; 2] = ["/coupons", "/extra"];

/// The books of a backend, and its faults.
#[derive(Debug, Default)]
pub(super) struct Backend {
    /// The units issued for each item, ever.
    pub(super) issued: HashMap<usize, Vec<Coupon>>,
    coupons: u64,
    answers: u64,
    /// Number of times that each fault happened.
    pub(super) faults: BTreeMap<&'static str, usize>,
}

/// An answer of the backend.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    /// Number of the answer, which stands in its body.
    pub(super) trace: u64,
}

/// The fate of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Issued,
    Busy,
    /// No more will ever be issued.
    Closed,
    /// The row says that it does not know.
    Maybe,
    /// The row says nothing.
    Mute,
}

/// A row before it is written.
#[derive(Debug, Clone)]
struct Row {
    /// The item; `None`: nobody's.
    number: Option<usize>,
    name: String,
    array: usize,
    members: Vec<(&'static str, String)>,
    /// The element is this, and no object.
    other: Option<&'static str>,
}

impl Row {
    fn text(&self, shape: &Shape, spelling: usize) -> (usize, String) {
        let members = self.members.iter().map(|(name, value)| format!("\"{name}\": {value}"));
        let members: Vec<String> = members.collect();
        let row = self.other.map_or_else(|| format!("{{{}}}", members.join(",")), str::to_owned);
        let text = match shape.rows[0].kind {
            Kind::Map => format!("{}:{row}", spelled(&self.name, spelling)),
            Kind::Array | Kind::Single => row,
        };
        (Shape::group(self.number.unwrap_or(0)), text)
    }
}

impl Backend {
    pub(super) fn count(&self, number: usize) -> u64 {
        self.issued.get(&number).map_or(0, |coupons| coupons.len() as u64)
    }

    /// Issues units, and gives their texts.
    fn issue(&mut self, number: usize, units: u64) -> Vec<Coupon> {
        let new: Vec<Coupon> = (0..units)
            .map(|_| {
                self.coupons += 1;
                (usize::from(self.coupons.is_multiple_of(3)), format!("{}.10", self.coupons))
            })
            .collect();
        self.issued.entry(number).or_default().extend(new.clone());
        new
    }

    fn note(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Does what was sent, and answers; an honest answer shows everything.
    pub(super) fn answer(
        &mut self,
        shape: &Shape,
        sent: &str,
        (random, honest): (&mut Random, bool),
    ) -> Answer {
        self.answers += 1;
        let trace = self.answers;
        let sent = shape.sent(sent);
        if !honest && random.one_in(4) {
            return self.without_rows(shape, &sent, random);
        }
        if shape.is_job {
            self.issue_all(&sent);
            let body = format!("{{\"trace\":{trace},\"kind\":\"taken\",\"job\":1.10}}");
            return Answer { status: 202, body, trace };
        }
        let mut rows = Vec::new();
        for (at, item) in sent.iter().enumerate() {
            let row = self.row(shape, (at, item), (random, honest));
            rows.extend(row);
        }
        if !honest && shape.by.starts_with(&[By::Id]) && shape.by.len() > 1 && random.one_in(4) {
            // Rows without names are told by their members or places.
            self.note("names lost");
            rows.iter_mut().for_each(|row| row.members.retain(|(name, _)| *name != "ref"));
        } else if !honest && random.one_in(2) {
            self.damage(shape, &mut rows, sent.len(), random);
        }
        let statuses: &[u16] = if shape.all_issued { &[200, 201] } else { &[200, 207, 400, 500] };
        let status = if honest { 200 } else { statuses[random.below(statuses.len())] };
        let mut body = self.body(shape, &rows, random);
        if !honest && random.one_in(12) {
            self.note("cut off");
            let at = random.below(body.len());
            body.truncate(body.floor_char_boundary(at));
        }
        Answer { status, body, trace }
    }

    fn issue_all(&mut self, sent: &[Sent]) {
        for item in sent {
            self.issue(item.number, item.units);
        }
    }

    /// An answer that speaks of no item.
    fn without_rows(&mut self, shape: &Shape, sent: &[Sent], random: &mut Random) -> Answer {
        let trace = self.answers;
        let answer = |status, body: &str| Answer { status, body: body.to_owned(), trace };
        let is_done = random.one_in(2);
        match random.below(6) {
            0 => {
                self.note("refused");
                return answer(429, "{\"error\":\"slow down\"}");
            }
            1 => {
                self.note("not issued");
                return answer(400, "{\"refused\":true}");
            }
            _ if is_done => self.issue_all(sent),
            _ => {}
        }
        let (fault, answer) = match random.below(5) {
            0 => ("down", answer(503, "<html>busy</html>")),
            1 => ("garbage", answer(200, "OK")),
            2 => ("pending", answer(207, "{\"later\":true}")),
            // No row under a status that says nothing.
            3 if !shape.rows[0].is_root() => ("no list", answer(500, "{\"rows\":null}")),
            _ => ("another value", answer(200, "[[]]")),
        };
        self.note(fault);
        answer
    }

    /// The row of an item after its fate; none where only failures have one.
    fn row(
        &mut self,
        shape: &Shape,
        (at, item): (usize, &Sent),
        (random, honest): (&mut Random, bool),
    ) -> Option<Row> {
        let is_whole = !shape.counts() || item.item["whole"] == true;
        let mut units = match random.below(3) {
            0 => item.units,
            _ if honest && is_whole => item.units,
            _ if honest => 1 + random.below(usize::try_from(item.units).unwrap()) as u64,
            _ => random.below(usize::try_from(item.units).unwrap() + 1) as u64,
        };
        if is_whole && units < item.units {
            units = 0;
        }
        let fate = match random.below(12) {
            _ if honest => Fate::Issued,
            0 => Fate::Closed,
            1 => Fate::Maybe,
            2 => Fate::Mute,
            _ if units == 0 => Fate::Busy,
            _ => Fate::Issued,
        };
        if fate == Fate::Closed && !shape.lists() {
            units = 0;
        }
        let coupons = self.issue(item.number, units);
        if shape.all_issued && fate == Fate::Issued && units == item.units {
            return None;
        }
        let code = match fate {
            Fate::Issued if units == item.units => "\"ok\"",
            Fate::Issued => "\"part\"",
            Fate::Busy => "\"busy\"",
            Fate::Closed => "\"never\"",
            Fate::Maybe => "\"maybe\"",
            Fate::Mute => "\"odd\"",
        };
        let mut members = names(shape, at, item, random);
        members.push(("code", code.to_owned()));
        if fate != Fate::Mute {
            self.counts(shape, (units, item.units), (&coupons, &mut members), (random, honest));
        }
        if shape.requested {
            members.push(("asked", item.units.to_string()));
        }
        if random.one_in(3) {
            members.reverse();
        }
        let array = shape.array(fate == Fate::Issued && units > 0);
        let name = shape.id(item.number, item.number);
        Some(Row { number: Some(item.number), name, array, members, other: None })
    }

    /// Adds what a row says of the units.
    fn counts(
        &mut self,
        shape: &Shape,
        (units, sent): (u64, u64),
        (coupons, members): (&[Coupon], &mut Vec<(&'static str, String)>),
        (random, honest): (&mut Random, bool),
    ) {
        let mut told = units;
        if !honest && random.one_in(15) {
            self.note("over-issued");
            told = sent + 1;
        }
        if matches!(shape.says, Says::Count | Says::CountAndArrays) {
            // A code says it as well.
            let is_plain = told == units && (units == 0 || units == sent);
            let spelled = match random.below(4) {
                0 if is_plain && shape.says == Says::Count => String::from("null"),
                1 => format!("\"{told}\""),
                2 => format!("{told}.0"),
                _ => told.to_string(),
            };
            members.push(("issued", spelled));
        }
        if shape.lists() {
            let list = |at: usize| {
                let inside: Vec<&str> =
                    coupons.iter().filter(|it| it.0 == at).map(|it| it.1.as_str()).collect();
                format!("[{}]", inside.join(" , "))
            };
            let mut lists = [list(0), list(1)];
            if told != units {
                lists[0] = format!("[{}]", vec!["\"?\""; usize::try_from(told).unwrap()].join(","));
                lists[1] = String::from("null");
            } else if !honest && random.one_in(20) && shape.says == Says::CountAndArrays {
                self.note("contradicting");
                lists[1] = lists[1].replacen('[', "[\"?\", ", 1).replace(", ]", "]");
            }
            if lists[1] == "[]" && random.one_in(2) {
                lists[1] = String::from("null");
            }
            members.extend(["coupons", "extra"].into_iter().zip(lists));
            if random.one_in(3) {
                members.push(("notes", format!("[{{\"note\":{}}}]", self.answers)));
            }
        }
    }

    /// Damages rows in ways that can be noticed: where a row names its item, in any; else in one,
    /// since a row that is missing and one that is new look like none.
    fn damage(&mut self, shape: &Shape, rows: &mut Vec<Row>, sent: usize, random: &mut Random) {
        if rows.is_empty() {
            return;
        }
        let is_map = shape.rows[0].kind == Kind::Map;
        let is_single = shape.rows[0].kind == Kind::Single;
        // A row of failure that is missing says that the item was issued.
        let may_miss = !shape.all_issued && !is_single;
        let faults = if shape.names_items() { 1 + random.below(3) } else { 1 };
        for _ in 0..faults {
            if rows.is_empty() {
                return;
            }
            let at = random.below(rows.len());
            let fault = match random.below(8) {
                0 if may_miss => {
                    rows.remove(at);
                    "row lost"
                }
                1 if !is_single => {
                    let mut twin = rows[at].clone();
                    let is_moved = shape.rows.len() > 1 && random.one_in(2);
                    if is_moved {
                        twin.array = 1 - twin.array;
                    }
                    rows.insert(random.below(rows.len() + 1), twin);
                    if is_moved {
                        // Alone, the one in the wrong array would be believed.
                        return self.note("row in both arrays");
                    }
                    "row doubled"
                }
                2 if !is_single => {
                    rows.insert(random.below(rows.len() + 1), foreign(shape, &rows[at], sent));
                    "foreign row"
                }
                3 => {
                    let (name, _) = rows[at].members[random.below(rows[at].members.len())].clone();
                    rows[at].members.push((name, String::from("\"other\"")));
                    "member doubled"
                }
                4 if shape.names_items() && !is_map && !rows[at].members.is_empty() => {
                    let name = if shape.by.contains(&By::Id) { "ref" } else { "at" };
                    let other = if name == "ref" {
                        spelled(IDS[random.below(6)], 0)
                    } else {
                        random.below(sent + 1).to_string()
                    };
                    let before = random.below(2) * rows[at].members.len();
                    rows[at].members.insert(before, (name, other));
                    "name doubled"
                }
                5 if may_miss || !shape.filtered => {
                    rows[at].other = Some(["7", "null", "[]", "\"x\""][random.below(4)]);
                    "no object"
                }
                6 if shape.names_items()
                    && !shape.by.contains(&By::Member)
                    && !is_map
                    && !is_single =>
                {
                    rows[at].members.retain(|(name, _)| !matches!(*name, "ref" | "at"));
                    "name lost"
                }
                _ if shape.names_items() => {
                    for end in (1..rows.len()).rev() {
                        rows.swap(end, random.below(end + 1));
                    }
                    "rows moved"
                }
                _ => return,
            };
            self.note(fault);
        }
    }

    /// The text of an answer with these rows.
    fn body(&mut self, shape: &Shape, rows: &[Row], random: &mut Random) -> String {
        let trace = self.answers;
        let spelling = random.below(4);
        let mut lists = Vec::new();
        for (array, list) in shape.rows.iter().enumerate() {
            let mut elements: Vec<(usize, String)> = rows
                .iter()
                .filter(|row| row.array == array)
                .map(|row| row.text(shape, spelling))
                .collect();
            if shape.filtered && random.one_in(3) {
                self.note("no row");
                let other = (random.below(2), String::from("{\"warning\":1.10}"));
                elements.insert(random.below(elements.len() + 1), other);
            }
            let text = list.text(&elements, &format!(", \"ref\":\"g{trace}\""));
            let is_absent = elements.is_empty() && (shape.all_issued || shape.rows.len() > 1);
            if !is_absent || random.one_in(2) {
                lists.push((list.outer, text));
            }
        }
        if shape.rows[0].is_root() {
            return lists.into_iter().map(|(_, text)| text).collect();
        }
        if lists.is_empty() && !shape.all_issued {
            lists.push((shape.rows[0].outer, String::from("[]")));
        }
        let lists: Vec<String> =
            lists.iter().map(|(outer, text)| format!("\"{}\" : {text}", &outer[1..])).collect();
        let kind = if shape.all_issued { "\"kind\":\"taken\"," } else { "" };
        let comma = if lists.is_empty() { "" } else { "," };
        format!("{{\"trace\":{trace},{kind}{} {comma} \"z\":1.10}}", lists.join(","))
    }
}

/// The members of a row that name its item.
fn names(
    shape: &Shape,
    at: usize,
    item: &Sent,
    random: &mut Random,
) -> Vec<(&'static str, String)> {
    let mut members = Vec::new();
    let text = |value: &serde_json::Value| value.to_string();
    for by in &shape.by {
        match by {
            By::Id => {
                let id = shape.id(item.number, at);
                let is_number = id.bytes().all(|byte| byte.is_ascii_digit()) && random.one_in(2);
                members.push(("ref", if is_number { id } else { spelled(&id, random.below(4)) }));
            }
            By::Index => members.push(("at", at.to_string())),
            By::Member => {}
            By::Position => {}
        }
    }
    if shape.by.contains(&By::Member) && !shape.echo {
        members.push(("sku", text(&item.item["sku"])));
    }
    if shape.echo {
        members.push(("n", text(&item.item["n"])));
    }
    members
}

/// A row of nobody, like this one.
fn foreign(shape: &Shape, like: &Row, sent: usize) -> Row {
    let mut row = like.clone();
    row.number = None;
    row.name = String::from("nobody");
    for (name, value) in &mut row.members {
        match *name {
            "ref" | "sku" | "n" => *value = String::from("\"nobody\""),
            "at" => *value = (sent + 7).to_string(),
            _ => {}
        }
    }
    if shape.by == [By::Id, By::Index] {
        row.members.retain(|(name, _)| *name != "at");
    }
    row
}
