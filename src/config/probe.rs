//! `[route.probe]`.

use std::time::Duration;

use http::Method;

use super::matcher::{MatchScope, matchers};
use super::own_requests::{LONGEST_AGE, MOST_TIMES, PolicyContext, request, response};
use super::policy::{AbsenceRules, ListRules, NextPage, ProbeRules, WindowRules};
use super::table::{Located, TableReader};
use super::values::{LONGEST_WAIT, SHORTEST};
use crate::json::Pointer;
use crate::template::{Template, TemplateSyntax};

/// Probes of a route at once, and pages of a list, at most.
const MOST_AT_ONCE: u64 = 1000;

/// Keys that need a list.
const OF_LISTS: [&str; 4] = ["match", "window", "next", "max_pages"];

pub(super) fn probe(table: &TableReader<'_>, context: &PolicyContext<'_>) -> Option<ProbeRules> {
    let request = request(table, context, Some(Method::GET));
    if let Some(request) = request.as_ref().filter(|it| !it.method.is_safe())
        && !table.has("body")
    {
        let what = format!("`method`: a probe by {} needs a `body`", request.method);
        table.wrong_at(&["method"], what);
    }
    let forward = table.headers("forward").unwrap_or_default();
    let list = list(table, context);
    let is_list = table.has("rows");
    for key in OF_LISTS {
        if !is_list && table.has(key) {
            let what = format!("`{key}` is about a list; name its array with `rows`");
            table.wrong_at(&[key], what);
        }
    }
    let scope = if is_list { MatchScope::Row } else { MatchScope::Answer };
    let executed = matchers(table, "executed", scope).unwrap_or_default();
    let not_executed = matchers(table, "not_executed", scope).unwrap_or_default();
    let pending = matchers(table, "pending", scope).unwrap_or_default();
    if !table.has("executed") {
        let what = "[route.probe] needs `executed`, the matcher of an object or row that proves an \
                    execution";
        table.missing(&["executed"], what);
    }
    let rules = ProbeRules {
        forward,
        min_age: table.time("min_age", seconds(5), Duration::ZERO..=LONGEST_WAIT),
        every: table.time("every", seconds(30), SHORTEST..=LONGEST_WAIT),
        give_up_after: table.time("give_up_after", seconds(86_400), SHORTEST..=LONGEST_AGE),
        concurrency: table.count("concurrency", 4, 1..=MOST_AT_ONCE),
        list: list.flatten(),
        executed,
        not_executed,
        pending,
        response: response(table, context, true),
        absent: table.optional_table("absent", |table| absent(table, context)).flatten(),
        already_done: None,
        request: request?,
    };
    if let Some(absent) = &rules.absent
        && !rules.request.path.fields().any(|_| true)
        && rules.list.is_none()
        && rules.request.body.is_none()
    {
        let _ = absent;
        let what = "`path` names nothing of the request, so that the answer would be the same for \
                    every key; write a field such as {key} or {/id}";
        table.wrong_at(&["path"], what);
    }
    Some(rules)
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn list(table: &TableReader<'_>, context: &PolicyContext<'_>) -> Option<Option<ListRules>> {
    let rows = table.pointer("rows");
    let members = members(table, context);
    let window = table.optional_table("window", window).flatten();
    let next = table.optional_table("next", next).flatten();
    let max_pages = table.count("max_pages", 20, 1..=MOST_AT_ONCE);
    if !table.has("rows") {
        return None;
    }
    if !table.has("match") {
        let what = "a list needs `match`, the members that the row of a request has, such as { \
                    \"/reference\" = \"{key}\" }";
        table.missing(&["match"], what);
    }
    if table.has("match") && members.is_empty() {
        table.missing(&["match"], "`match` is empty, so that every row would match");
    }
    Some(Some(ListRules { rows: rows?, members, window, next, max_pages }))
}

/// `match = { "/metadata" = "{/metadata}" }`
fn members(table: &TableReader<'_>, context: &PolicyContext<'_>) -> Vec<(Pointer, Template)> {
    let mut members = Vec::new();
    let expected = "a table such as { \"/reference\" = \"{key}\" }";
    let written = table.text_members("match", expected).unwrap_or_default();
    let names = written.iter().any(|(_, text)| text.value.contains('{'));
    for (at, text) in &written {
        let pointer = match Pointer::parse(at) {
            Ok(pointer) => pointer,
            Err(error) => {
                table.wrong(text, format!("`match`: \"{at}\": {error}"));
                continue;
            }
        };
        let named = format!("match.{at}");
        let text = Located { key: "match", at: text.at, value: text.value.clone() };
        let fields = context.fields(false);
        let template = table.parsed_template(&named, &text, TemplateSyntax::Text, &fields);
        members.extend(template.map(|template| (pointer, template)));
    }
    if !written.is_empty() && !names {
        let what = "`match` names nothing of the request, so that another request's row would \
                    match; write a field such as {key} or {/id}";
        table.wrong_at(&["match"], what);
    }
    members
}

fn window(table: &TableReader<'_>) -> Option<WindowRules> {
    if !table.has("at") {
        let what = "`window` needs `at`, the pointer of the time in a row";
        table.missing(&["at"], what);
    }
    let at = table.pointer("at");
    let before = table.time("before", seconds(120), Duration::ZERO..=LONGEST_AGE);
    let after = table.time("after", seconds(120), Duration::ZERO..=LONGEST_AGE);
    Some(WindowRules { at: at?, before, after })
}

fn next(table: &TableReader<'_>) -> Option<NextPage> {
    let link = table.optional::<bool>("link");
    let pointer = table.pointer("pointer");
    let query = table.optional::<String>("query");
    match (table.has("link"), table.has("pointer"), table.has("query")) {
        (true, false, false) if link.as_ref().is_some_and(|link| link.value) => {
            Some(NextPage::Link { link: true })
        }
        (false, true, true) => Some(NextPage::Query { pointer: pointer?, query: query?.value }),
        (..) => {
            let what = "`next` is { pointer = \"/next\", query = \"after\" } or { link = true }";
            table.missing(&["pointer", "query", "link"], what);
            None
        }
    }
}

fn absent(table: &TableReader<'_>, context: &PolicyContext<'_>) -> Option<AbsenceRules> {
    if !table.has("control") {
        let what = "`absent` needs `control`, a path that answers 2xx while the backend works, so \
                    that an outage is not taken for absence";
        table.missing(&["control"], what);
    }
    let fields = context.fields(false);
    let control = table.template("control", TemplateSyntax::Path, &fields);
    let sightings = table.number("sightings", 3, 1..=MOST_TIMES);
    Some(AbsenceRules {
        after: table.time("after", seconds(120), Duration::ZERO..=LONGEST_AGE),
        sightings: sightings.try_into().unwrap_or(u32::MAX),
        look_back: table.time("look_back", seconds(86_400), SHORTEST..=LONGEST_AGE),
        control: control?.value,
    })
}
