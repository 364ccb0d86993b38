//! Routes in items mode, as `oncegate check` shows them.

use std::fmt::{Display, Write as _};

use serde::{Serialize, Serializer};
use serde_json::json;

use super::model::ItemsMode;
use super::shown::outcome_json;
use crate::items::list_path::ListPath;
use crate::items::rules::{
    ArrayMeaning, IssuedRules, ItemId, ItemRules, ListKind, MatchBy, QuantityView, RenderRules,
    ResponseRules, StateTemplate,
};

/// The place of the keys in the bodies of a route, for people.
pub(super) fn items_key_cell(mode: &ItemsMode) -> String {
    let rules = &mode.rules;
    let list = match rules.kind {
        ListKind::Single => rules.at.to_string(),
        ListKind::Array | ListKind::Map => format!("{}/*", rules.at),
    };
    match &rules.id {
        ItemId::Member(id) => format!("body {list}{id}"),
        ItemId::ListPosition => format!("position in body {}", rules.at),
        ItemId::Name => format!("names in body {}", rules.at),
    }
}

impl ItemsMode {
    /// The place of the batch's own key, in its text form.
    pub(crate) fn batch_place(&self) -> Option<String> {
        self.batch_key.as_ref()?.places.single().map(ToString::to_string)
    }
}

/// A batch and its rows as understood, a line for each part. Every line ends with a line feed.
pub(super) fn batch_lines(route: &str, mode: &ItemsMode) -> String {
    let rules = &mode.rules;
    let mut lines = vec![("batch", format!("{route}, ledger {}", mode.ledger))];
    lines.extend(item_lines(mode));
    lines.extend(row_lines(&rules.response));
    lines.extend(template_lines(&rules.render));
    let mut text = String::new();
    for (at, (name, value)) in lines.into_iter().enumerate() {
        let indent = if at == 0 { "" } else { "  " };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{indent}{name:<width$}{value}", width = 16 - indent.len());
    }
    text
}

type PartLine = (&'static str, String);

fn item_lines(mode: &ItemsMode) -> Vec<PartLine> {
    let ItemRules { at, kind, id, quantity, same, shared, response, .. } = &mode.rules;
    let rules = &mode.rules;
    let mut lines = vec![("items", format!("{}, at most {}", list(*kind, at), rules.max_items))];
    lines.push((
        "id",
        match id {
            ItemId::Member(pointer) => pointer.to_string(),
            ItemId::ListPosition => {
                "the position, in batches with the same number of items".to_owned()
            }
            ItemId::Name => "the name in the map".to_owned(),
        },
    ));
    if let Some(place) = mode.batch_place() {
        lines.push(("batch key", format!("{place}, a part of every id")));
    }
    lines.push((
        "quantity",
        match quantity {
            Some(pointer) => format!("{pointer}, 1 to {}", rules.max_quantity),
            None => "1".to_owned(),
        },
    ));
    let own = match same {
        Some(same) => joined(same, ", "),
        None if response.echo.is_empty() => "all of the item".to_owned(),
        None => format!("all of the item but {}", joined(&response.echo, ", ")),
    };
    let shared = match shared {
        Some(shared) if shared.is_empty() => "nothing beside the items".to_owned(),
        Some(shared) => joined(shared, ", "),
        None if at.is_grouped() => "all beside the groups and items".to_owned(),
        None => "all beside the items".to_owned(),
    };
    lines.push(("same", format!("{own}; {shared}")));
    let serialize_by = mode.serialize_by();
    if !serialize_by.is_empty() {
        lines.push(("one at a time", format!("by {}", serialize_by.join(", "))));
    }
    if !rules.indivisible.is_empty() {
        lines.push(("indivisible", joined(&rules.indivisible, " or ")));
    }
    if rules.view == QuantityView::Delta {
        lines.push(("view", "what this call issued".to_owned()));
    }
    lines
}

fn row_lines(response: &ResponseRules) -> Vec<PartLine> {
    let row_array = |(path, meaning): (&ListPath, &ArrayMeaning)| match meaning {
        ArrayMeaning::Any => list(response.kind, path),
        ArrayMeaning::Success => format!("{} (issued)", list(response.kind, path)),
        ArrayMeaning::Failure => format!("{} (not issued, or unknown)", list(response.kind, path)),
    };
    let arrays = response.at.iter().zip(&response.meanings).map(row_array);
    let mut lines = vec![("rows", arrays.collect::<Vec<_>>().join("; "))];
    let mut more = |name, value: String| {
        if !value.is_empty() {
            lines.push((name, value));
        }
    };
    more("elements", joined(&response.row, " or "));
    let way = |by: &MatchBy| match by {
        MatchBy::Id(pointer) => format!("the id at {pointer}"),
        MatchBy::Member(pointer) => format!("the item's value at {pointer}"),
        MatchBy::Index(pointer) => format!("the index at {pointer} of what was sent"),
        MatchBy::ListPosition => "the position of what was sent".to_owned(),
    };
    let ways: Vec<String> = response.by.iter().map(way).collect();
    more(
        "matched by",
        if response.kind == ListKind::Map { "the name".to_owned() } else { ways.join(", then ") },
    );
    let IssuedRules { count, arrays, all } = &response.issued;
    let counted = count.as_ref().map(|count| format!("the number at {count}"));
    let listed = (!arrays.is_empty()).then(|| format!("the elements of {}", joined(arrays, " + ")));
    let whole = (!all.is_empty()).then(|| format!("all when {}", joined(all, " or ")));
    let issued: Vec<String> = counted.into_iter().chain(listed).chain(whole).collect();
    more("issued", issued.join(", "));
    more("retry", joined(&response.retry, " or "));
    more("final", joined(&response.finals, " or "));
    more("unknown", joined(&response.unknown, " or "));
    more("all issued", joined(&response.all_issued, " or "));
    more("not issued", joined(&response.not_issued, " or "));
    more("requested", response.requested.as_ref().map(ToString::to_string).unwrap_or_default());
    more("append", joined(&response.append, ", "));
    more("echo", joined(&response.echo, ", "));
    lines
}

fn template_lines(render: &RenderRules) -> Vec<PartLine> {
    let template = |(name, template): (&'static str, &StateTemplate)| {
        let places = |members: &[(crate::json::Pointer, String)]| {
            members.iter().map(|(at, _)| at.to_string()).collect::<Vec<_>>().join(", ")
        };
        let mut parts = Vec::new();
        parts.extend(template.http.map(|status| format!("status {status}")));
        if !template.item.is_empty() {
            parts.push(format!("puts {} into a row", places(&template.item)));
        }
        if !template.top.is_empty() {
            parts.push(format!("puts {} into the answer", places(&template.top)));
        }
        (!parts.is_empty()).then(|| (name, parts.join(", ")))
    };
    let RenderRules { complete, partial, none, unknown, .. } = render;
    let templates = [
        ("if complete", complete),
        ("if partial", partial),
        ("if none", none),
        ("if unknown", unknown),
    ];
    templates.into_iter().filter_map(template).collect()
}

/// A list and its place.
fn list(kind: ListKind, at: &ListPath) -> String {
    let place = match at.to_string() {
        root if root.is_empty() => "the whole body".to_owned(),
        path => path,
    };
    match kind {
        ListKind::Array => format!("array at {place}"),
        ListKind::Single => format!("one, at {place}"),
        ListKind::Map => format!("map at {place}"),
    }
}

fn joined<T: Display>(list: &[T], between: &str) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

impl ItemsMode {
    /// The places of `serialize_by`: pointers bare, other places in their text form.
    pub(crate) fn serialize_by(&self) -> Vec<String> {
        let pointers = self.rules.serialize_by.iter().map(ToString::to_string);
        pointers.chain(self.serialize_places.iter().map(ToString::to_string)).collect()
    }
}

impl Serialize for ItemsMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = json!(self.rules);
        items["ledger"] = json!(self.ledger);
        items["batch"] = json!(self.batch_place());
        items["serialize_by"] = json!(self.serialize_by());
        let shown = json!({
            "items": items,
            "duplicates": self.duplicates,
            "outcome": outcome_json(&self.outcome),
            "record": self.record,
            "errors": self.dialect.name(),
        });
        shown.serialize(serializer)
    }
}
