//! `[route.items]` as it was understood.

use serde_json::{Value, json};

use super::model::ItemsMode;
use crate::items::rules::{
    MatchBy, Matcher, MemberTest, QuantityView, Refusal, Template, TemplateMember,
};
use crate::json::Pointer;

/// Where the keys of a route stand, for people.
pub(super) fn items_key_cell(mode: &ItemsMode) -> String {
    let rules = &mode.rules;
    let list = match (rules.at.to_string(), rules.single) {
        (at, false) => format!("{at}/*"),
        (at, true) => at,
    };
    format!("body {list}{}", rules.id)
}

pub(super) fn items_json(mode: &ItemsMode) -> Value {
    let rules = &mode.rules;
    let (response, render) = (&rules.response, &rules.render);
    json!({
        "at": text(&rules.at),
        "single": rules.single,
        "id": text(&rules.id),
        "quantity": rules.quantity.as_ref().map(text),
        "max_items": rules.max_items,
        "max_quantity": rules.max_quantity,
        "ledger": mode.ledger,
        "same": rules.same.as_ref().map(|list| texts(list)),
        "shared": rules.shared.as_ref().map(|list| texts(list)),
        "serialize_by": texts(&rules.serialize_by),
        "indivisible": rules.indivisible.as_ref().map(matcher),
        "view": match rules.view { QuantityView::Cumulative => "cumulative", QuantityView::Delta => "delta" },
        "response": {
            "at": text(&response.at),
            "single": response.single,
            "match": response.by.iter().map(|by| match by {
                MatchBy::Id(pointer) => format!("id:{pointer}"),
                MatchBy::Member(pointer) => format!("member:{pointer}"),
                MatchBy::Position => String::from("position"),
            }).collect::<Vec<_>>(),
            "issued": {
                "count": response.issued.count.as_ref().map(text),
                "arrays": texts(&response.issued.arrays),
                "all": response.issued.all.as_ref().map(matcher),
            },
            "requested": response.requested.as_ref().map(text),
            "append": texts(&response.append),
            "not_issued": matchers(&response.not_issued),
            "retry": matchers(&response.retry),
            "final": matchers(&response.finals),
            "unknown": matchers(&response.unknown),
        },
        "render": {
            "complete": template(&render.complete),
            "partial": template(&render.partial),
            "none": template(&render.none),
            "unknown": template(&render.unknown),
            "mismatch": render.mismatch.as_ref().map(refusal),
            "duplicate": render.duplicate.as_ref().map(refusal),
            "parallel": render.parallel.as_ref().map(refusal),
        },
    })
}

fn template(template: &Template) -> Value {
    json!({ "item": puts(&template.item), "top": puts(&template.top), "http": template.http })
}

fn refusal(refusal: &Refusal) -> Value {
    json!({ "top": puts(&refusal.top), "http": refusal.http })
}

fn puts(puts: &[TemplateMember]) -> Value {
    let value = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    puts.iter().map(|(at, json)| (at.to_string(), value(json))).collect()
}

fn matchers(list: &[Matcher]) -> Vec<Value> {
    list.iter().map(matcher).collect()
}

fn matcher(matcher: &Matcher) -> Value {
    let mut described = json!({});
    if let Some(status) = &matcher.status {
        described["status"] = json!(status.to_string());
    }
    if let Some((pointer, test)) = &matcher.member {
        described["pointer"] = text(pointer);
        match test {
            MemberTest::AbsentOrNull => described["absent_or_null"] = json!(true),
            MemberTest::OneOf(texts) => described["one_of"] = json!(texts),
        }
    }
    if let Some(unless) = &matcher.unless {
        described["unless"] = self::matcher(unless);
    }
    described
}

fn text(pointer: &Pointer) -> Value {
    json!(pointer.to_string())
}

fn texts(pointers: &[Pointer]) -> Vec<String> {
    pointers.iter().map(ToString::to_string).collect()
}
