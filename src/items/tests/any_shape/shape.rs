//! Batch APIs drawn at random from all parts that `[route.items]` can describe, and their requests.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::random::Random;
use super::list_at::{Kind, ListAt};

/// Ids of the items, by their number: plain ones, numbers, and some with characters that are
/// escaped in JSON or in the key of a record.
pub(super) const IDS: [&str; 6] = ["i0", "1", "a/b", "3", "~\"é", "52"];

/// A way in which a row names its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum By {
    Id,
    Index,
    Member,
    Position,
}

/// The way in which a row reports issued units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Says {
    Count,
    Arrays,
    CountAndArrays,
    Code,
}

/// A kind of batch API.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) items: ListAt,
    /// Rows; of two lists the first is that of successes.
    pub(super) rows: Vec<ListAt>,
    /// An answer has no rows: it is a job.
    pub(super) is_job: bool,
    pub(super) positions: bool,
    /// The batch has a key of its own.
    pub(super) batch: Option<&'static str>,
    pub(super) quantities: bool,
    pub(super) by: Vec<By>,
    pub(super) says: Says,
    pub(super) all_issued: bool,
    /// Elements without a code are no rows.
    pub(super) filtered: bool,
    /// Items and rows have a number that each request gives anew.
    pub(super) echo: bool,
    pub(super) delta: bool,
    pub(super) requested: bool,
    pub(super) indivisible: bool,
    /// Rows show their state.
    pub(super) templates: bool,
    /// Few members are compared.
    pub(super) compares_few: bool,
}

impl Shape {
    /// Number of different goods; items of the same are told apart where all of them have a row.
    pub(super) fn goods(&self) -> usize {
        if self.rows.len() > 1 || self.all_issued { IDS.len() } else { 4 }
    }

    pub(super) fn sku(&self, number: usize, mark: &str) -> String {
        format!("S{}{mark}", number % self.goods())
    }

    /// The parts of this shape, for the count of what a test saw.
    pub(super) fn traits(&self) -> Vec<String> {
        let mut traits = vec![format!("items {} {:?}", self.items.path(), self.items.kind)];
        match self.is_job {
            true => traits.push("rows none".to_owned()),
            false => traits.extend(
                self.rows.iter().map(|rows| format!("rows {} {:?}", rows.path(), rows.kind)),
            ),
        }
        traits.extend(self.by.iter().map(|by| format!("by {by:?}")));
        let flags = [
            (!self.is_job, format!("says {:?}", self.says)),
            (self.positions, "positions".to_owned()),
            (self.batch.is_some(), "batch key".to_owned()),
            (self.quantities, "quantities".to_owned()),
            (self.all_issued && !self.is_job, "failures only".to_owned()),
            (self.filtered, "some elements are rows".to_owned()),
            (self.echo, "echo".to_owned()),
            (self.delta, "delta".to_owned()),
            (self.indivisible, "indivisible".to_owned()),
            (self.templates, "templates".to_owned()),
        ];
        traits.extend(flags.into_iter().filter(|(is_so, _)| *is_so).map(|(_, name)| name));
        traits
    }

    /// Units of an item at most.
    pub(super) fn most(&self) -> usize {
        if self.quantities { 4 } else { 1 }
    }

    /// A row can report a part of what was sent.
    pub(super) fn counts(&self) -> bool {
        !self.is_job && self.says != Says::Code
    }

    pub(super) fn lists(&self) -> bool {
        !self.is_job && matches!(self.says, Says::Arrays | Says::CountAndArrays)
    }

    /// Every row names its item beyond doubt.
    pub(super) fn names_items(&self) -> bool {
        let named = self.by.iter().any(|by| matches!(by, By::Id | By::Index));
        self.rows[0].kind == Kind::Map || named
    }

    /// The member by which rows find their items: one that is never given anew is shared by some.
    pub(super) fn member(&self) -> &'static str {
        if self.echo { "n" } else { "sku" }
    }

    /// The array of the row of an item that was issued, or was not.
    pub(super) fn array(&self, issued: bool) -> usize {
        usize::from(self.rows.len() > 1 && !issued)
    }

    pub(super) fn id(&self, number: usize, at: usize) -> String {
        if self.positions { at.to_string() } else { IDS[number].to_owned() }
    }

    /// Key of an item's record.
    pub(super) fn key(&self, number: usize) -> String {
        let escaped = |text: &str| text.replace('~', "~0").replace('/', "~1");
        let id = self.id(number, number);
        self.batch.map_or(id.clone(), |batch| format!("/{}/{}", escaped(batch), escaped(&id)))
    }

    /// The lines of `[route.items]`, and of the tables after it.
    pub(super) fn rules(&self) -> String {
        let mut text = format!("at = \"{}\"\n", self.items.path());
        match self.items.kind {
            Kind::Map => text.push_str("map = true\n"),
            Kind::Single => text.push_str("single = true\nid = \"/ref\"\n"),
            Kind::Array if self.positions => text.push_str("id = \"position\"\n"),
            Kind::Array => text.push_str("id = \"/ref\"\n"),
        }
        let mut line = |wanted: bool, line: &str| {
            if wanted {
                text.push_str(line);
                text.push('\n');
            }
        };
        line(self.batch.is_some(), "batch = \"header:x-batch\"");
        line(self.quantities, "quantity = \"/units\"");
        line(self.delta, "view = \"delta\"");
        line(self.indivisible, "indivisible = { pointer = \"/whole\", equals = true }");
        line(self.compares_few, "same = [\"/sku\"]\nshared = []");
        text.push_str("[route.items.response]\n");
        self.response(&mut text);
        if self.templates {
            text.push_str("[route.items.render]\n");
            for state in ["complete", "partial", "none", "unknown"] {
                let _ = writeln!(text, "{state} = {{ item = {{ \"/state\" = \"{state}\" }} }}");
            }
        }
        text.push_str("[route.outcome]\npending = [207]\n");
        text
    }

    fn response(&self, text: &mut String) {
        let flag = |kind, wanted| self.rows[0].kind == kind || self.items.kind == wanted;
        if !self.is_job {
            let paths: Vec<String> =
                self.rows.iter().map(|list| format!("\"{}\"", list.path())).collect();
            let _ = writeln!(text, "at = [{}]", paths.join(", "));
            for (kind, name) in [(Kind::Map, "map"), (Kind::Single, "single")] {
                if flag(kind, kind) {
                    let _ = writeln!(text, "{name} = {}", self.rows[0].kind == kind);
                }
            }
        }
        let by = self.by.iter().map(|by| match by {
            By::Id => "\"id:/ref\"".to_owned(),
            By::Index => "\"index:/at\"".to_owned(),
            By::Member => format!("\"member:/{}\"", self.member()),
            By::Position => "\"position\"".to_owned(),
        });
        let by: Vec<String> = by.collect();
        if !by.is_empty() {
            let _ = writeln!(text, "match = [{}]", by.join(", "));
        }
        if self.all_issued {
            let sign = if self.is_job { "status = 202" } else { "status = \"2xx\"" };
            let _ = writeln!(
                text,
                "all_issued = {{ {sign}, pointer = \"/kind\", equals = \"taken\" }}"
            );
        }
        text.push_str("not_issued = { status = 400, pointer = \"/refused\", equals = true }\n");
        if self.is_job {
            return;
        }
        let all = "all = { pointer = \"/code\", equals = \"ok\" }";
        let all = if self.rows.len() > 1 { "all = { array = \"/good\" }" } else { all };
        let arrays = "arrays = [\"/coupons\", \"/extra\"]";
        let issued = match self.says {
            Says::Count => format!("count = \"/issued\", {all}"),
            Says::Arrays => arrays.to_owned(),
            Says::CountAndArrays => format!("count = \"/issued\", {arrays}"),
            Says::Code => all.to_owned(),
        };
        let _ = writeln!(text, "issued = {{ {issued} }}");
        let mut line = |wanted: bool, line: &str| {
            if wanted {
                text.push_str(line);
                text.push('\n');
            }
        };
        line(self.lists(), "append = [\"/coupons\", \"/extra\", \"/notes\"]");
        line(self.requested, "requested = \"/asked\"");
        line(self.echo, "echo = [\"/n\"]");
        line(self.filtered, "row = { pointer = \"/code\", present = true }");
        let array = if self.rows.len() > 1 { "array = \"/bad\", " } else { "" };
        line(true, &format!("retry = {{ {array}pointer = \"/code\", equals = \"busy\" }}"));
        line(true, &format!("final = {{ {array}pointer = \"/code\", equals = \"never\" }}"));
        line(true, "unknown = { pointer = \"/code\", equals = \"maybe\" }");
    }

    /// The group of an item: in order, so that positions stay in the order of the numbers.
    pub(super) const fn group(number: usize) -> usize {
        number / 3
    }

    /// Reads a request as sent upstream: the number, units and values of each item, in its order.
    pub(super) fn sent(&self, text: &str) -> Vec<Sent> {
        let body: Value = serde_json::from_str(text).expect("JSON goes upstream");
        let found = self.items.read(&body).expect("what goes upstream has items");
        let mut items: Vec<Sent> = found
            .into_iter()
            .map(|(_, item)| Sent {
                number: usize::try_from(item["no"].as_u64().unwrap()).unwrap(),
                units: item.get("units").map_or(1, |units| units.as_u64().unwrap()),
                item,
            })
            .collect();
        // Objects are read in the order of their names.
        let order: Vec<usize> = text
            .split("\"no\":")
            .skip(1)
            .map(|rest| rest.trim_start().split(|it: char| !it.is_ascii_digit()).next().unwrap())
            .map(|number| number.parse().unwrap())
            .collect();
        items.sort_by_key(|item| order.iter().position(|number| *number == item.number));
        items
    }

    /// The items of a request as JSON values, and its text in one of many equal spellings.
    pub(super) fn request(&self, wanted: &[Wanted], random: &mut Random) -> String {
        let spelling = random.below(4);
        let pad = ["", " ", "\n  ", ""][spelling];
        let mut elements = Vec::new();
        for (at, item) in wanted.iter().enumerate() {
            let id = self.id(item.number, at);
            let mut members = vec![format!("\"no\":{pad}{}", item.number)];
            members.push(format!("\"sku\":\"{}\"", self.sku(item.number, item.mark)));
            if self.items.kind != Kind::Map && !self.positions {
                let is_number = id.bytes().all(|byte| byte.is_ascii_digit()) && random.one_in(2);
                let id = if is_number { id.clone() } else { spelled(&id, spelling) };
                members.push(format!("\"ref\":{id}"));
            }
            if self.quantities && (item.units > 1 || random.one_in(2)) {
                members.push(format!("\"units\":{pad}{}", item.units));
            }
            if self.indivisible && item.number % 2 == 0 {
                members.push("\"whole\":true".to_owned());
            }
            if self.echo {
                members.push(format!("\"n\":\"{}\"", item.n));
            }
            if random.one_in(3) {
                members.reverse();
            }
            let text = format!("{{{pad}{}{pad}}}", members.join(&format!(",{pad}")));
            let named = match self.items.kind {
                Kind::Map => format!("{}:{pad}{text}", spelled(&id, spelling)),
                Kind::Array | Kind::Single => text,
            };
            elements.push((Self::group(item.number), named));
        }
        let list = self.items.text(&elements, "");
        if self.items.is_root() {
            return list;
        }
        let list = format!("\"{}\":{pad}{list}", &self.items.outer[1..]);
        if random.one_in(2) {
            format!("{{{list},{pad}\"shop\":1.10}}")
        } else {
            format!("{{\"shop\":{pad}1.10, {list}}}")
        }
    }

    /// The body that goes upstream of a request for these units of its items, by their numbers.
    pub(super) fn expected(&self, request: &str, units: &HashMap<usize, u64>) -> Value {
        let kept = |item: &mut Value| {
            let number = usize::try_from(item["no"].as_u64().unwrap()).unwrap();
            let Some(units) = units.get(&number) else { return false };
            if item.get("units").is_some() {
                item["units"] = json!(units);
            }
            true
        };
        let list = |list: &mut Value| match (self.items.kind, list) {
            (Kind::Array, Value::Array(items)) => items.retain_mut(kept),
            (Kind::Map, Value::Object(items)) => items.retain(|_, item| kept(item)),
            (_, item) => assert!(kept(item), "a single item is sent"),
        };
        let mut body: Value = serde_json::from_str(request).unwrap();
        let outer = body.pointer_mut(self.items.outer).unwrap();
        match self.items.inner {
            None => list(outer),
            Some(inner) => {
                let groups = outer.as_array_mut().unwrap();
                groups.iter_mut().for_each(|group| list(&mut group[inner]));
                groups.retain(|group| !matches!(&group[inner], Value::Array(it) if it.is_empty()));
                groups.retain(|group| !matches!(&group[inner], Value::Object(it) if it.is_empty()));
            }
        }
        body
    }
}

/// An item as it arrived at the backend.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) number: usize,
    pub(super) units: u64,
    pub(super) item: Value,
}

/// An item of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) number: usize,
    pub(super) units: u64,
    /// Told apart from the item that had the id before.
    pub(super) mark: &'static str,
    /// The correlation id of this request.
    pub(super) n: String,
}

/// A string in one of its spellings.
pub(super) fn spelled(text: &str, spelling: usize) -> String {
    if spelling < 3 {
        return Value::from(text).to_string();
    }
    let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
    format!("\"{escaped}\"")
}
