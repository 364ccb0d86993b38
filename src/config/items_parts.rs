//! Templates of `[route.items]`.

use super::table::{Located, TableReader};
use crate::items::rules::{Refusal, RenderRules, StateTemplate, TemplateMember};
use crate::json::Pointer;
use crate::matcher::StatusPattern;

/// `[route.items.render]`
pub(super) fn render(table: &TableReader<'_>, preset: RenderRules) -> RenderRules {
    let template =
        |key, preset: StateTemplate| table.optional_table(key, template).unwrap_or(preset);
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

fn template(table: &TableReader<'_>) -> StateTemplate {
    let http = http(table).and_then(|status| status.value);
    StateTemplate { item: puts(table, "item"), top: puts(table, "top"), http }
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
