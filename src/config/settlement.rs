//! `on_unknown` and the tables of its policies: `[route.probe]`, `[route.resend]`,
//! `[route.already_done]` and `[route.reverse]`.

use std::time::Duration;

use http::{HeaderValue, Method};

use super::matcher::{MatchScope, matchers};
use super::own_requests::{LONGEST_AGE, MOST_TIMES, PolicyContext, request, response};
use super::policy::{
    AfterReversal, AlreadyDone, AlreadyDoneRules, ProbeRules, RepeatMark, ResendRules,
    ReverseRules, UnknownPolicy,
};
use super::probe;
use super::table::TableReader;
use super::values::{LONGEST_WAIT, SHORTEST};
use crate::json::Pointer;

/// The policies and the tables that belong to them.
const TABLES: [(&str, &[&str]); 4] = [
    ("probe", &["probe"]),
    ("resend", &["resend"]),
    ("already_done", &["resend", "probe"]),
    ("reverse", &["reverse"]),
];

/// The policy of a route, by `on_unknown` in [route.outcome].
pub(super) fn policy(
    route: &TableReader<'_>,
    chosen: Option<&'static str>,
    context: &PolicyContext<'_>,
) -> UnknownPolicy {
    let chosen = chosen.unwrap_or("hold");
    for (table, policies) in TABLES {
        if !policies.contains(&chosen) && route.has(table) {
            let what = format!(
                "[route.{table}] belongs to on_unknown = \"{}\" in [route.outcome], and this \
                 route has \"{chosen}\"; change one of them",
                policies.join("\" or \"")
            );
            route.wrong_at(&[table], what);
        }
    }
    let probe = route.optional_table("probe", |table| probe::probe(table, context));
    let already_done = route.optional_table("already_done", |table| already_done(table, context));
    let resend = route.optional_table("resend", resend);
    let reverse = route.optional_table("reverse", |table| reverse(table, context));
    match (chosen, probe.flatten(), reverse.flatten()) {
        ("probe", Some(rules), _) => {
            let already_done = already_done.flatten();
            UnknownPolicy::Probe(Box::new(ProbeRules { already_done, ..rules }))
        }
        ("reverse", _, Some(rules)) => UnknownPolicy::Reverse(Box::new(rules)),
        ("resend", _, _) => {
            if !route.has("resend") {
                needs_table(route, "resend", "with `within`, the backend's own memory of keys");
            }
            let rules = resend.unwrap_or_else(no_resend);
            let already_done = already_done.flatten();
            UnknownPolicy::Resend(Box::new(ResendRules { already_done, ..rules }))
        }
        (name @ ("probe" | "reverse"), _, _) => {
            if name == "probe" && !route.has("probe") {
                needs_table(route, "probe", "with the question to ask the backend");
            }
            if name == "reverse" && !route.has("reverse") {
                needs_table(route, "reverse", "with the request that undoes a call");
            }
            UnknownPolicy::Hold
        }
        _ => UnknownPolicy::Hold,
    }
}

fn needs_table(route: &TableReader<'_>, policy: &'static str, content: &str) {
    let what = format!("on_unknown = \"{policy}\" needs [route.{policy}], {content}");
    route.wrong_at(&["outcome"], what);
}

fn no_resend() -> ResendRules {
    ResendRules {
        within: Duration::ZERO,
        attempts: 0,
        min_age: Duration::ZERO,
        mark: RepeatMark::default(),
        already_done: None,
    }
}

fn resend(table: &TableReader<'_>) -> ResendRules {
    if !table.has("within") {
        let what = "[route.resend] needs `within`, the time for which the backend itself \
                    remembers a key, such as \"24h\"";
        table.missing(&["within"], what);
    }
    let mark = table.optional_table("mark", mark).unwrap_or_default();
    ResendRules {
        within: table.time("within", Duration::from_secs(86_400), SHORTEST..=LONGEST_AGE),
        attempts: table.number("attempts", 3, 1..=MOST_TIMES).try_into().unwrap_or(u32::MAX),
        min_age: table.time("min_age", Duration::ZERO, Duration::ZERO..=LONGEST_WAIT),
        mark,
        already_done: None,
    }
}

fn mark(table: &TableReader<'_>) -> RepeatMark {
    let header = table.optional_table("header", |table| {
        let name = table.header("name");
        let value = table.optional::<String>("value");
        if name.is_none() && !table.has("name") || value.is_none() && !table.has("value") {
            table.missing(&["name", "value"], "`mark.header` needs `name` and `value`");
        }
        let (name, value) = (name?.value, value?);
        match HeaderValue::from_str(&value.value) {
            Ok(value) => Some((name, value)),
            Err(_) => {
                table.wrong(&value, "`value` cannot stand in a header");
                None
            }
        }
    });
    let mut body = Vec::new();
    let expected = "a table such as { \"/repeat\" = true }";
    for (at, json) in table.json_members("body", expected).unwrap_or_default() {
        match Pointer::parse(at) {
            Ok(pointer) if !pointer.tokens().is_empty() => body.push((pointer, json.value)),
            Ok(_) => table.wrong(&json, "`body` names the whole value; name a member"),
            Err(error) => table.wrong(&json, format!("`body`: \"{at}\": {error}")),
        }
    }
    RepeatMark { header: header.flatten(), body }
}

fn already_done(table: &TableReader<'_>, context: &PolicyContext<'_>) -> Option<AlreadyDoneRules> {
    let then = [("succeed", Some(AlreadyDone::Succeed)), ("hold", Some(AlreadyDone::Hold))];
    let matchers = matchers_of(table);
    let then = table.choice("then", AlreadyDone::Hold, &then);
    let response = response(table, context, false);
    if then == AlreadyDone::Hold && table.has("response") {
        let what = "`response` has no use with then = \"hold\", which replays nothing";
        table.wrong_at(&["response"], what);
    }
    Some(AlreadyDoneRules { matchers: vec![matchers?], then, response })
}

/// The matcher whose parts stand in the table itself.
fn matchers_of(table: &TableReader<'_>) -> Option<crate::matcher::Matcher> {
    super::matcher::matcher(table, MatchScope::Answer)
}

fn reverse(table: &TableReader<'_>, context: &PolicyContext<'_>) -> Option<ReverseRules> {
    let request = request(table, context, Some(Method::POST));
    let done = matchers(table, "done", MatchScope::Answer).unwrap_or_default();
    let nothing = matchers(table, "nothing", MatchScope::Answer).unwrap_or_default();
    if done.is_empty() && !table.has("done") {
        let what = "[route.reverse] needs `done`, the matcher of an answer that acknowledges the \
                    reversal, such as { status = \"2xx\" }";
        table.missing(&["done"], what);
    }
    let then = [("release", Some(AfterReversal::Release)), ("fail", Some(AfterReversal::Fail))];
    let then = table.choice("then", AfterReversal::Release, &then);
    let response = response(table, context, true);
    if then == AfterReversal::Release && table.has("response") {
        let what = "`response` has no use with then = \"release\": the key is free afterwards";
        table.wrong_at(&["response"], what);
    }
    let min_age = Duration::ZERO;
    let every = Duration::from_secs(30);
    Some(ReverseRules {
        request: request?,
        min_age: table.time("min_age", min_age, Duration::ZERO..=LONGEST_WAIT),
        every: table.time("every", every, SHORTEST..=LONGEST_WAIT),
        done,
        nothing,
        then,
        response,
    })
}
