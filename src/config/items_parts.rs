//! Matchers and templates of `[route.items]`.

use super::table::{Located, TableReader};
use super::units::ScalarText;
use crate::idempotency::outcome::StatusPattern;
use crate::items::rules::{Matcher, MemberTest, Refusal, RenderRules, Template, TemplateMember};
use crate::json::Pointer;

/// A matcher, or a list of alternative matchers; `None`: the key is not in the file.
pub(super) fn matchers(table: &TableReader<'_>, key: &'static str) -> Option<Vec<Matcher>> {
    let expected = "a matcher such as { pointer = \"/code\", equals = 5 }, or a list of them";
    let matchers = table.one_or_more_tables(key, expected, |table| matcher(table, true))?;
    Some(matchers.into_iter().flatten().collect())
}

/// `{ status = 402, pointer = "/error/code", equals = "…", unless = { … } }`; `of_answer`: the
/// matcher's values came with a status.
pub(super) fn matcher(table: &TableReader<'_>, of_answer: bool) -> Option<Matcher> {
    let status = table.optional::<StatusPattern>("status");
    if let Some(status) = status.as_ref().filter(|_| !of_answer) {
        table.wrong(status, "`status` has no use here: a request has none");
    }
    let pointer = table.pointer("pointer");
    let test = test(table);
    let unless = table.optional_table("unless", |table| matcher(table, of_answer)).flatten();
    let tests = ["equals", "one_of", "absent_or_null"];
    let member = match (table.has("pointer"), tests.iter().filter(|key| table.has(key)).count()) {
        (true, 1) => pointer.zip(test),
        // "not" is written as a matcher with `unless` alone.
        (false, 0) if table.has("status") || table.has("unless") => None,
        (false, 0) => {
            let what = "a matcher needs a `status`, or a `pointer` with `equals`, `one_of` or \
                        `absent_or_null`";
            table.missing(&["pointer"], what);
            return None;
        }
        (true, 0) | (false, 1) => {
            let what = "a matcher's `pointer` goes with one of `equals`, `one_of` and \
                        `absent_or_null`";
            table.missing(&["pointer", "equals", "one_of", "absent_or_null"], what);
            return None;
        }
        (_, _) => {
            let what = "`equals`, `one_of` and `absent_or_null` exclude each other; keep one of \
                        them";
            table.wrong_at(&[], what);
            return None;
        }
    };
    Some(Matcher {
        status: status.map(|status| status.value),
        member,
        unless: unless.map(Box::new),
    })
}

fn test(table: &TableReader<'_>) -> Option<MemberTest> {
    let equals = table.optional::<ScalarText>("equals").map(|text| vec![text.value.0]);
    let one_of = table.list::<ScalarText>("one_of");
    if one_of.as_ref().is_some_and(Vec::is_empty) {
        table.missing(&["one_of"], "`one_of` is empty, so that nothing could ever match");
    }
    let absent = table.optional::<bool>("absent_or_null");
    if let Some(flag) = absent.as_ref().filter(|flag| !flag.value) {
        table.wrong(flag, "`absent_or_null` can only be true; leave it out instead");
    }
    let one_of = one_of.map(|texts| texts.into_iter().map(|text| text.value.0).collect());
    equals.or(one_of).map(MemberTest::OneOf).or(absent.map(|_| MemberTest::AbsentOrNull))
}

/// `[route.items.render]`
pub(super) fn render(table: &TableReader<'_>, preset: RenderRules) -> RenderRules {
    let template = |key, preset: Template| table.optional_table(key, template).unwrap_or(preset);
    let refusal = |key, preset: Option<Refusal>| table.optional_table(key, refusal).or(preset);
    RenderRules {
        complete: template("complete", preset.complete),
        partial: template("partial", preset.partial),
        none: template("none", preset.none),
        unknown: template("unknown", preset.unknown),
        mismatch: refusal("mismatch", preset.mismatch),
        duplicate: refusal("duplicate", preset.duplicate),
        parallel: refusal("parallel", preset.parallel),
    }
}

fn template(table: &TableReader<'_>) -> Template {
    let http = http(table).and_then(|status| status.value);
    Template { item: puts(table, "item"), top: puts(table, "top"), http }
}

fn refusal(table: &TableReader<'_>) -> Refusal {
    let top = puts(table, "top");
    if top.is_empty() {
        table.missing(&["top"], "a refusal needs `top`, the members of its body");
    }
    let http = http(table);
    if let Some(status) = http.as_ref().filter(|it| it.value.is_some_and(|code| code < 400)) {
        table.wrong(status, "a refusal cannot have the status of a success");
    }
    Refusal { top, http: http.and_then(|status| status.value) }
}

/// The status of an answer with a body.
fn http(table: &TableReader<'_>) -> Option<Located<Option<u16>>> {
    let Located { key, at, value } = table.optional::<StatusPattern>("http")?;
    let value = match value {
        StatusPattern::Exact(code @ (100..200 | 204 | 205 | 304)) => {
            let what = format!(
                "an answer with the status {code} has no body, so that no row would reach the \
                 client; `http` is another, such as 200"
            );
            table.fail(key, at, what);
            None
        }
        StatusPattern::Exact(code) => Some(code),
        StatusPattern::Class(_) => {
            table.fail(key, at, "`http` is one status, such as 409");
            None
        }
    };
    Some(Located { key, at, value })
}

/// `{ "/pointer" = value }`
fn puts(table: &TableReader<'_>, key: &'static str) -> Vec<TemplateMember> {
    let expected = "a table such as { \"/status\" = { code = 200 } }";
    let mut puts = Vec::new();
    for (at, json) in table.json_members(key, expected).unwrap_or_default() {
        match Pointer::parse(at) {
            Ok(pointer) if !pointer.tokens().is_empty() => puts.push((pointer, json.value)),
            Ok(_) => table.wrong(&json, format!("`{key}` names the whole value; name a member")),
            Err(error) => table.wrong(&json, format!("`{key}`: \"{at}\": {error}")),
        }
    }
    puts
}
