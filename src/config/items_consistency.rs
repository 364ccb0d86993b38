//! What the parts of `[route.items]` must agree about, with each other and with other routes, so
//! that no configuration can freeze a partial result or forget what was issued.

use toml::Spanned;

use super::file::{self, Table};
use super::file_items as written;
use super::units::Period;
use super::values::{Reader, span_of};
use super::{ItemsMode, Mode, RouteConfig};
use crate::idempotency::retention::{Keep, Retention};
use crate::items::rules::{IssuedRules, ItemRules, RenderRules, ResponseRules};
use crate::json::Pointer;

/// Whether one of two members is the other, or in it.
fn over(one: &Pointer, other: &Pointer) -> bool {
    let (one, other) = (one.tokens(), other.tokens());
    one.starts_with(other) || other.starts_with(one)
}

/// The names of a path's parameters, in its order.
fn parameters(path: &str) -> Vec<&str> {
    let inside = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    inside.map(|name| name.trim_start_matches('*')).collect()
}

impl Reader {
    /// A stored answer of a whole request would freeze a partial result for ever.
    pub(super) fn no_request_keys(&mut self, route: &file::Route) {
        let tables = [("key", span_of(&route.key)), ("fingerprint", span_of(&route.fingerprint))];
        for (name, span) in tables {
            if span.is_some() {
                let what = format!(
                    "`{name}` has no place on a route with mode = \"items\": the keys are the ids \
                     of the items, and a key for the whole request would replay a partial result \
                     for ever; remove it, and use [route.items]"
                );
                self.say_at(span, what);
            }
        }
    }

    /// A tombstone of no length would let an id run again.
    pub(super) fn nothing_runs_again(&mut self, route: &file::Route, mode: &ItemsMode) {
        let Retention { answer, tombstone } = mode.record.retention;
        if answer != Keep::Forever && tombstone == Keep::For(std::time::Duration::ZERO) {
            let record = route.record.as_ref().map(Spanned::get_ref);
            let span = record.and_then(|record| span_of(&record.tombstone));
            let what = format!(
                "after `retention` ({}) a `tombstone` of 0s would let complete items be issued \
                 again; keep one of them longer",
                Period(answer)
            );
            self.say_at(span.or(span_of(&route.record)).or(span_of(&route.mode)), what);
        }
    }

    pub(super) fn response_agrees(
        &mut self,
        table: &Spanned<Table<written::Answer>>,
        rules: &ResponseRules,
    ) {
        let written = table.get_ref();
        if rules.by.is_empty() && !self.was_removed("match") && written.by.is_none() {
            let what = "[route.items.response] has no `match`, such as [\"id:/requestId\"] or \
                        [\"position\"]";
            self.say(table, what);
        }
        let IssuedRules { count, arrays, all } = &rules.issued;
        let unreadable =
            ["issued", "count", "arrays", "all"].iter().any(|key| self.was_removed(key));
        if count.is_none() && arrays.is_empty() && all.is_none() && !unreadable {
            let what = "nothing says how many units were issued; give `issued` a `count`, \
                        `arrays` or `all`";
            match &written.issued {
                Some(issued) => self.say(issued, what),
                None => self.say(table, what),
            }
        }
        for array in arrays.iter().filter(|array| !rules.append.contains(array)) {
            let what = format!(
                "`issued` counts {array}, which `append` does not name: what earlier tries issued \
                 would be missing in the answer; add it to `append`"
            );
            self.say_at(span_of(&written.append).or(span_of(&written.issued)), what);
        }
    }

    /// Notes members that would have to hold two things at once.
    pub(super) fn members_agree(
        &mut self,
        rules: &ItemRules,
        table: &Spanned<Table<written::Items>>,
    ) {
        let written = table.get_ref();
        if rules.quantity.as_ref().is_some_and(|quantity| over(quantity, &rules.id)) {
            let what = "`quantity` and `id` name the same member: a smaller quantity would be \
                        sent as another id; give each its own";
            self.say_at(span_of(&written.quantity).or(Some(table.span())), what.to_owned());
        }
        let ResponseRules { issued, requested, append, .. } = &rules.response;
        let count = issued.count.as_ref();
        let mut wrong = Vec::new();
        if count.zip(requested.as_ref()).is_some_and(|(count, requested)| over(count, requested)) {
            wrong.push("`requested` and `count` name the same member".to_owned());
        }
        for list in append {
            if count.into_iter().chain(requested).any(|number| over(number, list)) {
                wrong.push(format!("`append` names {list}, where a number is written"));
            }
        }
        for what in wrong {
            let what = format!("{what}: an answer can hold one of them only; give each its own");
            self.say_at(span_of(&written.response).or(Some(table.span())), what);
        }
    }

    /// Notes templates that would overwrite what the ledger writes.
    pub(super) fn templates_agree(&mut self, rules: &ItemRules, written: &written::Items) {
        let RenderRules { complete, partial, none, unknown, .. } = &rules.render;
        let response = &rules.response;
        let owned: Vec<&Pointer> = response
            .append
            .iter()
            .chain(&response.issued.count)
            .chain(&response.requested)
            .collect();
        let mut wrong = Vec::new();
        for template in [complete, partial, none, unknown] {
            for (put, _) in &template.item {
                if owned.iter().any(|own| over(put, own)) {
                    wrong.push(format!(
                        "a template puts {put} into an item, which the ledger writes"
                    ));
                }
            }
            for (put, _) in &template.top {
                let rows_at_root = response.at.tokens().is_empty();
                if (rows_at_root && !response.single) || (!rows_at_root && over(put, &response.at))
                {
                    wrong.push(format!(
                        "a template puts {put} into the answer, where the rows stand"
                    ));
                }
            }
        }
        wrong.dedup();
        for what in wrong {
            self.say_at(span_of(&written.render).or(span_of(&written.response)), what);
        }
    }

    /// What a route must agree about with the routes before it, so that no request can find a way
    /// around the ledger.
    pub(super) fn items_beside(
        &mut self,
        table: &Spanned<Table<file::Route>>,
        route: &RouteConfig,
        others: &[RouteConfig],
    ) {
        for other in others {
            let modes = (&route.mode, &other.mode);
            if route.path == other.path
                && let (Mode::Items(_), Mode::Request(_)) | (Mode::Request(_), Mode::Items(_)) =
                    modes
            {
                let what = format!(
                    "route \"{}\" serves {} too, and one of the two has mode = \"items\", the \
                     other \"request\": a stored answer could freeze a partial result for ever; \
                     give both the same mode",
                    other.name, other.path
                );
                self.say_at(
                    span_of(&table.get_ref().mode).or(span_of(&table.get_ref().path)),
                    what,
                );
            }
            let (Mode::Items(mine), Mode::Items(theirs)) = modes else { continue };
            let sorted = |list: &Option<Vec<Pointer>>| {
                let texts = list.iter().flatten().map(ToString::to_string);
                let mut texts: Vec<String> = texts.collect();
                texts.sort_unstable();
                (list.is_some(), texts)
            };
            if mine.ledger != theirs.ledger {
                continue;
            }
            let counted = |mode: &ItemsMode| (sorted(&mode.rules.same), sorted(&mode.rules.shared));
            // Left out, it counts under this name.
            let quantity = |mode: &ItemsMode| {
                mode.rules.quantity.as_ref().map_or("/quantity".to_owned(), ToString::to_string)
            };
            let append = |mode: &ItemsMode| sorted(&Some(mode.rules.response.append.clone()));
            let written = table.get_ref();
            let disagreements = [
                (
                    counted(mine) != counted(theirs),
                    span_of(&written.items),
                    "another `same` or `shared`, so that the same item would look changed; give \
                     both the same lists",
                ),
                (
                    quantity(mine) != quantity(theirs),
                    span_of(&written.items),
                    "another `quantity`, so that the same item would look changed; give both the \
                     same",
                ),
                (
                    parameters(&route.path) != parameters(&other.path),
                    span_of(&written.path),
                    "other parameters in its `path`, so that the same item would look changed; give \
                     them the same names, in the same order",
                ),
                (
                    append(mine) != append(theirs),
                    span_of(&written.items),
                    "another `append`, so that what one issued would be missing in the answers of \
                     the other; give both the same list",
                ),
                (
                    mine.record.retention != theirs.record.retention,
                    span_of(&written.record),
                    "another `retention` or `tombstone`, so that one would forget what the other \
                     has to keep; give both the same",
                ),
            ];
            for (_, span, what) in disagreements.into_iter().filter(|(differs, ..)| *differs) {
                let (name, ledger) = (&other.name, &mine.ledger);
                let what =
                    format!("route \"{name}\" shares the ledger \"{ledger}\", but has {what}");
                self.say_at(span.or(span_of(&written.mode)), what);
            }
        }
    }
}
