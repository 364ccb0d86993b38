//! The tables of a route in items mode: what was written, on top of its profile, made sure of.
//! Matchers and templates are left to `items_parts`.

use toml::Spanned;

use super::file::{self, List, Table, Written};
use super::file_items as written;
use super::profiles::Profile;
use super::reader::{Reader, elements, span_of};
use super::units::{Flag, Period};
use super::{Config, ItemsMode, Mode, Route, Upstream};
use crate::idempotency::record::{Keep, Retention};
use crate::items::rules::{
    IssuedRules, ItemRules, MAX_ITEMS, MAX_QUANTITY, MatchBy, RenderRules, ResponseRules, View,
};
use crate::json::Pointer;

/// The most that `max_items` may be: a batch is claimed in one write.
const MOST_ITEMS: u64 = 10_000;
/// The most that `max_quantity` may be: what every JSON reader can tell apart from its neighbors.
const MOST_UNITS: u64 = 1 << 53;

/// Presets of a route in items mode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preset {
    None,
    Capillary,
}

impl Reader {
    pub(super) fn items_mode(
        &mut self,
        table: &Spanned<Table<file::Route>>,
        config: &Config,
        upstream: Option<&Upstream>,
    ) -> ItemsMode {
        let route = table.get_ref();
        self.no_request_keys(route);
        let preset = self.items_profile(route);
        let base = Profile::Ietf.request_mode(config.store.retention);
        let empty = Table::default();
        let rules = match (&route.items, preset) {
            (Some(items), preset) => self.item_rules(items, preset),
            (None, Preset::Capillary) => super::capillary::rules(),
            (None, Preset::None) => {
                let what = "mode = \"items\" needs [route.items], which says where the items, \
                            their ids and the rows of an answer stand";
                self.missing(table, "items", what);
                self.removed.push((0, String::from("items")));
                self.item_rules(&Spanned::new(0..0, empty), Preset::None)
            }
        };
        let retention = match preset {
            Preset::None => base.record.retention,
            Preset::Capillary => Retention { answer: Keep::Forever, tombstone: Keep::Forever },
        };
        let mut mode = ItemsMode {
            ledger: route.name.as_ref().map(|name| name.get_ref().clone()).unwrap_or_default(),
            rules,
            duplicates: base.duplicates,
            outcome: base.outcome,
            record: super::RecordRules { retention, ..base.record },
            dialect: base.dialect,
        };
        if let Some(ledger) = route.items.as_ref().and_then(|items| items.get_ref().ledger.as_ref())
        {
            mode.ledger = self.named("ledger", "ledger", ledger, |_| false);
        }
        if let Some(duplicates) = &route.duplicates {
            mode.duplicates = self.duplicates(duplicates.get_ref(), mode.duplicates, upstream);
        }
        if let Some(outcome) = &route.outcome {
            mode.outcome = self.outcome(outcome, &mode.outcome);
        }
        if let Some(record) = &route.record {
            mode.record = self.record(record.get_ref(), mode.record, config);
        }
        self.nothing_runs_again(route, &mode);
        mode
    }

    /// A stored answer of a whole request would freeze a partial result for ever.
    fn no_request_keys(&mut self, route: &file::Route) {
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

    fn items_profile(&mut self, route: &file::Route) -> Preset {
        if let Some(profile) = &route.profile
            && matches!(profile.get_ref().as_str(), "stripe" | "redeemsg")
        {
            let what = format!(
                "profile = \"{}\" is about one key for each request; with mode = \"items\" use \
                 \"capillary\", or none",
                profile.get_ref()
            );
            self.say(profile, what);
            return Preset::None;
        }
        self.choice(
            "profile",
            &route.profile,
            Preset::None,
            &[("ietf", Some(Preset::None)), ("capillary", Some(Preset::Capillary))],
        )
    }

    /// A tombstone of no length would let an id run again.
    fn nothing_runs_again(&mut self, route: &file::Route, mode: &ItemsMode) {
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

    fn item_rules(&mut self, table: &Spanned<Table<written::Items>>, preset: Preset) -> ItemRules {
        let items = table.get_ref();
        let preset = match preset {
            Preset::Capillary => Some(super::capillary::rules()),
            Preset::None => None,
        };
        let from = |pick: fn(&ItemRules) -> Pointer| preset.as_ref().map(pick);
        let at = self.place_in(table, "at", &items.at, from(|rules| rules.at.clone()));
        let id = self.place_in(table, "id", &items.id, from(|rules| rules.id.clone()));
        if let Some(written) = items.id.as_ref().filter(|_| id.tokens().is_empty()) {
            self.say(written, "`id` names the whole item; name the member that holds its id");
        }
        let quantity = match &items.quantity {
            Some(written) => self.pointer("quantity", written),
            None => preset.as_ref().and_then(|rules| rules.quantity.clone()),
        };
        let single = flag(&items.single, preset.as_ref().is_some_and(|rules| rules.single));
        let lists = preset.as_ref();
        ItemRules {
            same: self
                .pointers("same", &items.same)
                .or_else(|| lists.and_then(|rules| rules.same.clone())),
            shared: self
                .pointers("shared", &items.shared)
                .or_else(|| lists.and_then(|rules| rules.shared.clone())),
            serialize_by: self
                .pointers("serialize_by", &items.serialize_by)
                .or_else(|| lists.map(|rules| rules.serialize_by.clone()))
                .unwrap_or_default(),
            indivisible: match &items.indivisible {
                Some(matcher) => self.matcher(matcher.span(), matcher.get_ref(), false),
                None => lists.and_then(|rules| rules.indivisible.clone()),
            },
            view: self.choice(
                "view",
                &items.view,
                View::Cumulative,
                &[("cumulative", Some(View::Cumulative)), ("delta", Some(View::Delta))],
            ),
            max_items: self.count("max_items", &items.max_items, MAX_ITEMS, 1..=MOST_ITEMS),
            max_quantity: self
                .bounded(
                    "max_quantity",
                    &items.max_quantity,
                    super::units::Count(MAX_QUANTITY),
                    super::units::Count(1)..=super::units::Count(MOST_UNITS),
                )
                .0,
            response: self.response_rules(table, &at, single, preset.as_ref()),
            render: match &items.render {
                Some(render) => self.render_rules(
                    render.get_ref(),
                    preset.as_ref().map(|rules| rules.render.clone()).unwrap_or_default(),
                ),
                None => preset.map(|rules| rules.render).unwrap_or_default(),
            },
            at,
            single,
            id,
            quantity,
        }
        .checked(self, items)
    }

    fn response_rules(
        &mut self,
        table: &Spanned<Table<written::Items>>,
        items_at: &Pointer,
        single: bool,
        preset: Option<&ItemRules>,
    ) -> ResponseRules {
        let preset = preset.map(|rules| &rules.response);
        let Some(response) = &table.get_ref().response else {
            if preset.is_none() && !self.was_removed("response") && !self.was_removed("items") {
                let what = "[route.items] has no [route.items.response], which says how the \
                            backend's answer is read";
                self.say(table, what);
            }
            return preset.cloned().unwrap_or_else(|| ResponseRules {
                at: items_at.clone(),
                single,
                by: Vec::new(),
                issued: IssuedRules::default(),
                requested: None,
                append: Vec::new(),
                not_issued: Vec::new(),
                retry: Vec::new(),
                finals: Vec::new(),
                unknown: Vec::new(),
            });
        };
        let written = response.get_ref();
        let matchers =
            |reader: &mut Self, written: &Written<written::Matchers>, preset: Option<&Vec<_>>| {
                match written {
                    Some(list) => reader.matchers(list),
                    None => preset.cloned().unwrap_or_default(),
                }
            };
        let rules = ResponseRules {
            at: match &written.at {
                Some(at) => self.pointer("at", at).unwrap_or_else(|| items_at.clone()),
                None => preset.map_or_else(|| items_at.clone(), |preset| preset.at.clone()),
            },
            single: flag(&written.single, preset.map_or(single, |preset| preset.single)),
            by: match &written.by {
                Some(_) => self.match_by(&written.by),
                None => preset.map(|preset| preset.by.clone()).unwrap_or_default(),
            },
            issued: match &written.issued {
                Some(issued) => self.issued(issued),
                None => preset.map(|preset| preset.issued.clone()).unwrap_or_default(),
            },
            requested: match &written.requested {
                Some(at) => self.pointer("requested", at),
                None => preset.and_then(|preset| preset.requested.clone()),
            },
            append: self
                .pointers("append", &written.append)
                .or_else(|| preset.map(|preset| preset.append.clone()))
                .unwrap_or_default(),
            not_issued: matchers(self, &written.not_issued, preset.map(|it| &it.not_issued)),
            retry: matchers(self, &written.retry, preset.map(|it| &it.retry)),
            finals: matchers(self, &written.finals, preset.map(|it| &it.finals)),
            unknown: matchers(self, &written.unknown, preset.map(|it| &it.unknown)),
        };
        self.response_agrees(response, &rules);
        rules
    }

    fn response_agrees(&mut self, table: &Spanned<Table<written::Answer>>, rules: &ResponseRules) {
        let written = table.get_ref();
        if rules.by.is_empty() && !self.was_removed("match") && written.by.is_none() {
            let what = "[route.items.response] has no `match`, such as [\"id:/requestId\"] or \
                        [\"position\"]";
            self.say(table, what);
        }
        let IssuedRules { count, arrays, all } = &rules.issued;
        if count.is_none() && arrays.is_empty() && all.is_none() && !self.was_removed("issued") {
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

    fn issued(&mut self, issued: &Spanned<Table<written::Issued>>) -> IssuedRules {
        let written = issued.get_ref();
        IssuedRules {
            count: written.count.as_ref().and_then(|at| self.pointer("count", at)),
            arrays: self.pointers("arrays", &written.arrays).unwrap_or_default(),
            all: written.all.as_ref().and_then(|all| self.matcher(all.span(), all.get_ref(), true)),
        }
    }

    fn match_by(&mut self, written: &List<String>) -> Vec<MatchBy> {
        let mut by = Vec::new();
        for text in elements(written) {
            let way = match text.get_ref().split_once(':') {
                Some(("id", at)) => Pointer::parse(at).ok().map(MatchBy::Id),
                Some(("member", at)) => Pointer::parse(at).ok().map(MatchBy::Member),
                None if text.get_ref() == "position" => Some(MatchBy::Position),
                Some(_) | None => None,
            };
            match way {
                None => {
                    let what = format!(
                        "`match` cannot be \"{}\"; use \"id:/pointer\", \"member:/pointer\" or \
                         \"position\"",
                        text.get_ref()
                    );
                    self.say(text, what);
                }
                Some(MatchBy::Id(_)) if by.iter().any(|way| matches!(way, MatchBy::Id(_))) => {
                    self.say(text, "`match` names two ids; a row has one");
                }
                Some(way) if by.contains(&way) => {
                    self.say(text, format!("`match` names \"{}\" twice", text.get_ref()));
                }
                Some(way) => by.push(way),
            }
        }
        if let Some(list) = written.as_ref().filter(|list| list.get_ref().is_empty()) {
            self.say(list, "`match` is empty; name at least one way");
        }
        by
    }

    /// A pointer that must be there unless a profile has it.
    fn place_in(
        &mut self,
        table: &Spanned<Table<written::Items>>,
        key: &str,
        written: &Written<String>,
        preset: Option<Pointer>,
    ) -> Pointer {
        match (written, preset) {
            (Some(written), _) => self.pointer(key, written).unwrap_or_else(Pointer::root),
            (None, Some(preset)) => preset,
            (None, None) => {
                if !self.was_removed("items") {
                    let what = format!("[route.items] has no `{key}`, a JSON pointer");
                    self.missing(table, key, &what);
                }
                Pointer::root()
            }
        }
    }

    /// The pointers of a list; `None` when it was not written.
    fn pointers(&mut self, key: &str, written: &List<String>) -> Option<Vec<Pointer>> {
        written.as_ref()?;
        let mut pointers = Vec::new();
        for written in elements(written) {
            let Some(pointer) = self.pointer(key, written) else { continue };
            if pointers.contains(&pointer) {
                self.say(written, format!("`{key}` names {pointer} twice"));
            } else {
                pointers.push(pointer);
            }
        }
        Some(pointers)
    }

    /// What a route must agree about with the routes before it, so that no request can find a way
    /// around the ledger.
    pub(super) fn items_beside(
        &mut self,
        table: &Spanned<Table<file::Route>>,
        route: &Route,
        others: &[Route],
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
            let counted = |mode: &ItemsMode| (sorted(&mode.rules.same), sorted(&mode.rules.shared));
            if mine.ledger == theirs.ledger && counted(mine) != counted(theirs) {
                let what = format!(
                    "route \"{}\" shares the ledger \"{}\", but has another `same` or `shared`, so \
                     that the same item would look changed; give both the same lists",
                    other.name, mine.ledger
                );
                self.say_at(
                    span_of(&table.get_ref().items).or(span_of(&table.get_ref().mode)),
                    what,
                );
            }
        }
    }
}

pub(super) fn flag(written: &Written<Flag>, preset: bool) -> bool {
    written.as_ref().map_or(preset, |flag| flag.get_ref().0)
}

trait Checked {
    fn checked(self, reader: &mut Reader, written: &written::Items) -> Self;
}

impl Checked for ItemRules {
    /// Notes templates that would overwrite what the ledger writes.
    fn checked(self, reader: &mut Reader, written: &written::Items) -> Self {
        let RenderRules { complete, partial, none, unknown, .. } = &self.render;
        let response = &self.response;
        let owned: Vec<&Pointer> = response
            .append
            .iter()
            .chain(&response.issued.count)
            .chain(&response.requested)
            .collect();
        let over = |put: &Pointer, own: &Pointer| {
            let (put, own) = (put.tokens(), own.tokens());
            put.starts_with(own) || own.starts_with(put)
        };
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
            reader.say_at(span_of(&written.render).or(span_of(&written.response)), what);
        }
        self
    }
}
