//! Consistency of the keys of `[route.items]`, and with other routes, so that no configuration can
//! freeze a partial result or forget issued units.

use std::time::Duration;

use super::model::{ItemsMode, Mode, RouteConfig};
use super::table::TableReader;
use super::units::Period;
use crate::idempotency::retention::{Keep, Retention};
use crate::items::rules::{ItemRules, RenderRules, ResponseRules};
use crate::json::Pointer;

pub(super) const NOTHING_COUNTED: &str =
    "nothing says how many units were issued; give `issued` a `count`, `arrays` or `all`";

/// `true` when two members overlap: the same place, or a place inside the other.
fn over(one: &Pointer, other: &Pointer) -> bool {
    let (one, other) = (one.tokens(), other.tokens());
    one.starts_with(other) || other.starts_with(one)
}

/// The names of a path's parameters, in its order.
fn parameters(path: &str) -> Vec<&str> {
    let inside = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    inside.map(|name| name.trim_start_matches('*')).collect()
}

/// Refuses a key for the whole request: its stored answer would freeze a partial result for ever.
pub(super) fn no_request_keys(route: &TableReader<'_>) {
    for key in ["key", "fingerprint"] {
        if route.has(key) {
            let what = format!(
                "`{key}` has no place on a route with mode = \"items\": the keys are the ids of \
                 the items, and a key for the whole request would replay a partial result for \
                 ever; remove it, and use [route.items]"
            );
            route.wrong_at(&[key], what);
        }
    }
}

/// Refuses a tombstone of no length, which would let an id run again.
pub(super) fn nothing_runs_again(
    route: &TableReader<'_>,
    tombstone_at: Option<usize>,
    retention: Retention,
) {
    let Retention { answer, tombstone } = retention;
    if answer != Keep::Forever && tombstone == Keep::For(Duration::ZERO) {
        let what = format!(
            "after `retention` ({}) a `tombstone` of 0s would let complete items be issued again; \
             keep one of them longer",
            Period(answer)
        );
        let at = tombstone_at.or(route.place("record")).or(route.place("mode"));
        route.wrong_elsewhere(at, what);
    }
}

pub(super) fn response(table: &TableReader<'_>, rules: &ResponseRules) {
    if rules.by.is_empty() && !table.has("match") {
        let what = "[route.items.response] has no `match`, such as [\"id:/requestId\"] or \
                    [\"position\"]";
        table.missing(&["match"], what);
    }
    let issued = &rules.issued;
    let nothing = issued.count.is_none() && issued.arrays.is_empty() && issued.all.is_empty();
    if nothing && !table.has("issued") {
        table.missing(&["issued"], NOTHING_COUNTED);
    }
    for array in issued.arrays.iter().filter(|array| !rules.append.contains(array)) {
        let what = format!(
            "`issued` counts {array}, which `append` does not name: what earlier tries issued \
             would be missing in the answer; add it to `append`"
        );
        table.wrong_at(&["append", "issued"], what);
    }
}

/// Reports members with two conflicting meanings.
pub(super) fn members(table: &TableReader<'_>, rules: &ItemRules) {
    if rules.quantity.as_ref().is_some_and(|quantity| over(quantity, &rules.id)) {
        let what = "`quantity` and `id` name the same member: a smaller quantity would be sent as \
                    another id; give each its own";
        table.wrong_at(&["quantity"], what);
    }
    let ResponseRules { issued, requested, append, .. } = &rules.response;
    let count = issued.count.as_ref();
    let mut clashes = Vec::new();
    if count.zip(requested.as_ref()).is_some_and(|(count, requested)| over(count, requested)) {
        clashes.push("`requested` and `count` name the same member".to_owned());
    }
    for list in append {
        if count.into_iter().chain(requested).any(|number| over(number, list)) {
            clashes.push(format!("`append` names {list}, where a number is written"));
        }
    }
    for clash in clashes {
        let what = format!("{clash}: an answer can hold one of them only; give each its own");
        table.wrong_at(&["response"], what);
    }
}

/// Reports templates that overwrite members of the ledger.
pub(super) fn templates(table: &TableReader<'_>, rules: &ItemRules) {
    let RenderRules { complete, partial, none, unknown, .. } = &rules.render;
    let response = &rules.response;
    let owned: Vec<&Pointer> =
        response.append.iter().chain(&response.issued.count).chain(&response.requested).collect();
    let rows_at_root = response.at.tokens().is_empty();
    for template in [complete, partial, none, unknown] {
        for (put, _) in &template.item {
            if owned.iter().any(|own| over(put, own)) {
                let what = format!("a template puts {put} into an item, which the ledger writes");
                table.wrong_at(&["render", "response"], what);
            }
        }
        for (put, _) in &template.top {
            if (rows_at_root && !response.single) || (!rows_at_root && over(put, &response.at)) {
                let what = format!("a template puts {put} into the answer, where the rows stand");
                table.wrong_at(&["render", "response"], what);
            }
        }
    }
}

/// Notes disagreement with earlier routes, by which a request could find a way around the ledger.
pub(super) fn check_beside(table: &TableReader<'_>, route: &RouteConfig, others: &[RouteConfig]) {
    for other in others {
        match (&route.mode, &other.mode) {
            (Mode::Items(_), Mode::Request(_)) | (Mode::Request(_), Mode::Items(_))
                if route.path == other.path =>
            {
                let what = format!(
                    "route \"{}\" serves {} too, and one of the two has mode = \"items\", the \
                     other \"request\": a stored answer could freeze a partial result for ever; \
                     give both the same mode",
                    other.name, other.path
                );
                table.wrong_at(&["mode", "path"], what);
            }
            (Mode::Items(mine), Mode::Items(theirs)) if mine.ledger == theirs.ledger => {
                for (key, what) in disagreements((route, mine), (other, theirs)) {
                    let (name, ledger) = (&other.name, &mine.ledger);
                    let what =
                        format!("route \"{name}\" shares the ledger \"{ledger}\", but has {what}");
                    table.wrong_at(&[key, "mode"], what);
                }
            }
            _ => {}
        }
    }
}

/// The keys about which two routes with the same ledger disagree, with the continuation of "but
/// has".
fn disagreements(
    (route, mine): (&RouteConfig, &ItemsMode),
    (other, theirs): (&RouteConfig, &ItemsMode),
) -> Vec<(&'static str, &'static str)> {
    let sorted = |list: &[Pointer]| {
        let mut texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        texts
    };
    let compared = |mode: &ItemsMode| {
        [&mode.rules.same, &mode.rules.shared].map(|list| list.as_deref().map(sorted))
    };
    // The name for the quantity if left out.
    let quantity = |mode: &ItemsMode| {
        mode.rules.quantity.as_ref().map_or("/quantity".to_owned(), ToString::to_string)
    };
    let append = |mode: &ItemsMode| sorted(&mode.rules.response.append);
    let all = [
        (
            compared(mine) != compared(theirs),
            "items",
            "another `same` or `shared`, so that the same item would look changed; give both the \
             same lists",
        ),
        (
            quantity(mine) != quantity(theirs),
            "items",
            "another `quantity`, so that the same item would look changed; give both the same",
        ),
        (
            parameters(&route.path) != parameters(&other.path),
            "path",
            "other parameters in its `path`, so that the same item would look changed; give them \
             the same names, in the same order",
        ),
        (
            append(mine) != append(theirs),
            "items",
            "another `append`, so that what one issued would be missing in the answers of the \
             other; give both the same list",
        ),
        (
            mine.record.retention != theirs.record.retention,
            "record",
            "another `retention` or `tombstone`, so that one would forget what the other has to \
             keep; give both the same",
        ),
    ];
    all.into_iter().filter(|(differs, ..)| *differs).map(|(_, key, what)| (key, what)).collect()
}
