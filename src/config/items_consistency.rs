//! Consistency of the keys of `[route.items]`, and with other routes, so that no configuration can
//! freeze a partial result or forget issued units.

use std::time::Duration;

use super::model::{ItemsMode, Mode, RouteConfig};
use super::table::TableReader;
use super::units::Period;
use crate::idempotency::retention::{Keep, Retention};
use crate::items::list_path::ListPath;
use crate::items::rules::{ItemId, ItemRules, ListKind, MatchBy, RenderRules, ResponseRules};
use crate::json::Pointer;
use crate::matcher::Matcher;

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

/// Refuses tables about the key of a whole request, whose stored answer would freeze a partial
/// result for ever.
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
    if route.has("suspect") {
        let what = "`suspect` has no place on a route with mode = \"items\": it looks for another \
                    key of a whole request, and the items of a batch have keys of their own; \
                    remove it";
        route.wrong_at(&["suspect"], what);
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

/// Reports an answer from which no outcome could be read.
pub(super) fn response(table: &TableReader<'_>, rules: &ResponseRules) {
    // An answer may report all items as issued without any row.
    let needs_rows = rules.all_issued.is_empty() && !table.has("all_issued");
    let is_map = rules.kind == ListKind::Map;
    if needs_rows && rules.by.is_empty() && !is_map && !table.has("match") {
        let what = "[route.items.response] has no `match`, such as [\"id:/requestId\"] or \
                    [\"position\"]";
        table.missing(&["match"], what);
    }
    if is_map && !rules.by.is_empty() {
        let what = "the rows of a map are found by their names; remove `match`";
        table.wrong_at(&["match", "map"], what);
    }
    let issued = &rules.issued;
    let nothing = issued.count.is_none() && issued.arrays.is_empty() && issued.all.is_empty();
    if needs_rows && nothing && !table.has("issued") {
        table.missing(&["issued"], NOTHING_COUNTED);
    }
    for array in issued.arrays.iter().filter(|array| !rules.append.contains(array)) {
        let what = format!(
            "`issued` counts {array}, which `append` does not name: what earlier tries issued \
             would be missing in the answer; add it to `append`"
        );
        table.wrong_at(&["append", "issued"], what);
    }
    if !rules.row.is_empty() && rules.kind != ListKind::Array {
        let what = "`row` tells the elements of an array apart; without an array, remove it";
        table.wrong_at(&["row"], what);
    }
    lists(table, rules);
    arrays(table, rules);
}

/// Reports paths of rows that contradict each other.
fn lists(table: &TableReader<'_>, rules: &ResponseRules) {
    let [_, _, ..] = rules.at.as_slice() else { return };
    let mut wrong = Vec::new();
    if rules.at.iter().any(ListPath::is_grouped) {
        wrong.push("several places of rows cannot have \"*\"; name one, or write them out");
    }
    if rules.kind == ListKind::Single {
        wrong.push("`single` is one row at one place; name one place in `at`");
    }
    if rules.by.contains(&MatchBy::ListPosition) {
        wrong.push("rows of several arrays have no common order; remove \"position\" from `match`");
    }
    let overlap =
        rules.at.iter().enumerate().any(|(at, path)| {
            rules.at[at + 1..].iter().any(|other| over(path.outer(), other.outer()))
        });
    if overlap {
        wrong.push("one place of rows is inside another; name places beside each other");
    }
    for what in wrong {
        table.wrong_at(&["at", "match"], what);
    }
}

/// Reports matchers of an `array` that holds no rows.
fn arrays(table: &TableReader<'_>, rules: &ResponseRules) {
    let lists = [
        ("row", &rules.row),
        ("issued", &rules.issued.all),
        ("retry", &rules.retry),
        ("final", &rules.finals),
        ("unknown", &rules.unknown),
    ];
    for (key, matchers) in lists {
        let named = matchers.iter().flat_map(named_arrays);
        for array in named.filter(|array| !rules.at.iter().any(|path| path.outer() == *array)) {
            let what =
                format!("`array = \"{array}\"` in `{key}` is no place of rows; `at` names those");
            table.wrong_at(&[key], what);
        }
    }
}

fn named_arrays(matcher: &Matcher) -> Vec<&Pointer> {
    let mut arrays: Vec<&Pointer> = matcher.array.iter().collect();
    arrays.extend(matcher.unless.iter().flat_map(named_arrays));
    arrays
}

/// Reports requests and answers that do not fit each other.
pub(super) fn shape(table: &TableReader<'_>, rules: &ItemRules) {
    let response = &rules.response;
    let is_grouped = response.at.iter().any(ListPath::is_grouped);
    if is_grouped && !rules.at.is_grouped() {
        let what = "the rows stand in groups (\"*\" in `at`), and the items do not: a row could \
                    not go back into its group; name the array of rows";
        table.wrong_at(&["response", "at"], what);
    }
    if rules.at.is_grouped() && rules.kind == ListKind::Single {
        table.wrong_at(&["single"], "a group has a list of items; `single` is one item in all");
    }
    for path in rules.shared.iter().flatten().filter(|path| path.is_grouped()) {
        if !rules.at.is_grouped() || path.outer() != rules.at.outer() {
            let what = format!("`shared` names {path}, but the items do not stand in such groups");
            table.wrong_at(&["shared"], what);
        }
    }
    let names_id = response.by.iter().any(|by| matches!(by, MatchBy::Id(_)));
    if rules.id == ItemId::ListPosition && (names_id || response.kind == ListKind::Map) {
        let what = "the items have no ids, only positions: no row can name one; use \
                    \"index:/pointer\", \"member:/pointer\" or \"position\"";
        table.wrong_at(&["response", "id"], what);
    }
}

/// Reports members with two conflicting meanings.
pub(super) fn members(table: &TableReader<'_>, rules: &ItemRules) {
    let id = match &rules.id {
        ItemId::Member(id) => Some(id),
        ItemId::ListPosition | ItemId::Name => None,
    };
    if rules.quantity.as_ref().zip(id).is_some_and(|(quantity, id)| over(quantity, id)) {
        let what = "`quantity` and `id` name the same member: a smaller quantity would be sent as \
                    another id; give each its own";
        table.wrong_at(&["quantity"], what);
    }
    let ResponseRules { issued, requested, append, echo, .. } = &rules.response;
    let compared = id.into_iter().chain(&rules.quantity).chain(rules.same.iter().flatten());
    for member in compared.filter(|member| echo.contains(member)) {
        let what = format!(
            "`echo` names {member}, which may not change between tries; a correlation id is given \
             anew by each request"
        );
        table.wrong_at(&["response"], what);
    }
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
    let is_root = |path: &ListPath| path.outer().tokens().is_empty();
    let rows_at_root = response.at.iter().any(is_root);
    let single = response.kind == ListKind::Single;
    for template in [complete, partial, none, unknown] {
        for (put, _) in &template.item {
            if owned.iter().any(|own| over(put, own)) {
                let what = format!("a template puts {put} into an item, which the ledger writes");
                table.wrong_at(&["render", "response"], what);
            }
        }
        for (put, _) in &template.top {
            let over_rows = |path: &ListPath| !is_root(path) && over(put, path.outer());
            if (rows_at_root && !single) || response.at.iter().any(over_rows) {
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
                if route.path == other.path && route.when.is_empty() && other.when.is_empty() =>
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

fn sorted<T: ToString>(list: &[T]) -> Vec<String> {
    let mut texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts
}

/// The keys about which two routes with the same ledger disagree, with the continuation of "but
/// has".
fn disagreements(
    (route, mine): (&RouteConfig, &ItemsMode),
    (other, theirs): (&RouteConfig, &ItemsMode),
) -> Vec<(&'static str, &'static str)> {
    let compared = |mode: &ItemsMode| {
        let ItemRules { same, shared, at, response, .. } = &mode.rules;
        let groups = at.is_grouped().then(|| at.to_string());
        (same.as_deref().map(sorted), shared.as_deref().map(sorted), groups, sorted(&response.echo))
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
            "another `same`, `shared`, `echo` or groups, so that the same item would look changed; \
             give both the same",
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
            mine.batch_place() != theirs.batch_place(),
            "items",
            "another `batch`, so that the same item would have another id; give both the same",
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
