//! The tables of a route in items mode: what was written, on top of its profile, made sure of.
//! Matchers and templates are left to `items_parts`.

use toml::Spanned;

use super::file::{self, List, Table, Written};
use super::file_items as written;
use super::profiles::Profile;
use super::units::Flag;
use super::values::{Reader, elements};
use super::{Config, ItemsMode, UpstreamConfig};
use crate::idempotency::retention::{Keep, Retention};
use crate::items::rules::{
    IssuedRules, ItemRules, MAX_ITEMS, MAX_QUANTITY, MatchBy, QuantityView, ResponseRules,
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
        upstream: Option<&UpstreamConfig>,
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
        let rules = ItemRules {
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
                QuantityView::Cumulative,
                &[
                    ("cumulative", Some(QuantityView::Cumulative)),
                    ("delta", Some(QuantityView::Delta)),
                ],
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
        };
        self.members_agree(&rules, table);
        self.templates_agree(&rules, items);
        rules
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
}

pub(super) fn flag(written: &Written<Flag>, preset: bool) -> bool {
    written.as_ref().map_or(preset, |flag| flag.get_ref().0)
}
