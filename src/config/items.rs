//! The tables of a route in items mode, over the presets of its profile. Templates are left to
//! `items_parts`, matchers to `matcher`, agreement between the keys to `items_consistency`.

use super::items_consistency as consistency;
use super::items_parts::render;
use super::matcher::{MatchScope, matchers};
use super::model::{Config, ItemsMode, RecordRules, UpstreamConfig};
use super::outcome::outcome_of_batches;
use super::own_requests::PolicyContext;
use super::policy::UnknownPolicy;
use super::profiles::Profile;
use super::settlement::policy;
use super::table::TableReader;
use super::{capillary, request};
use crate::idempotency::fingerprint::RuleId;
use crate::idempotency::retention::{Keep, Retention};
use crate::items::rules::{
    IssuedRules, ItemRules, MAX_ITEMS, MAX_QUANTITY, MatchBy, QuantityView, RenderRules,
    ResponseRules,
};
use crate::json::Pointer;

/// The largest `max_items`: a batch is claimed in a single write.
const MOST_ITEMS: u64 = 10_000;
/// The largest `max_quantity`: beyond, JSON readers with floating point confuse neighbors.
const MOST_UNITS: u64 = 1 << 53;

/// The mode of the route called `name`.
pub(super) fn mode(
    route: &TableReader<'_>,
    name: &str,
    config: &Config,
    upstream: Option<&UpstreamConfig>,
) -> ItemsMode {
    let rules = profile(route).then(capillary::rules);
    let base = Profile::Ietf.request_mode(config.store.retention);
    let retention = match rules {
        None => base.record.retention,
        Some(_) => Retention { answer: Keep::Forever, tombstone: Keep::Forever },
    };
    let preset = RecordRules { retention, ..base.record };
    consistency::no_request_keys(route);
    let duplicates =
        route.table("duplicates", |table| request::duplicates(table, base.duplicates, upstream));
    let (outcome, chosen) =
        route.table("outcome", |table| outcome_of_batches(table, &base.outcome));
    let path = request::path(route);
    let context = PolicyContext { credentials: &config.tenant.headers, items: true, path: &path };
    let on_unknown = policy(route, chosen, &context);
    if on_unknown != UnknownPolicy::Hold {
        let what = format!(
            "on_unknown = \"{}\" is not supported with mode = \"items\" by this version; use \
             \"hold\"",
            on_unknown.as_str()
        );
        route.wrong_at(&["outcome"], what);
    }
    let (record, tombstone_at) = route.table("record", |table| {
        (request::record(table, preset, config, &path), table.place("tombstone"))
    });
    consistency::nothing_runs_again(route, tombstone_at, record.retention);
    if rules.is_none() && !route.has("items") {
        let what = "mode = \"items\" needs [route.items], which says where the items, their ids \
                    and the rows of an answer stand";
        route.missing(&["items"], what);
    }
    let read = route.optional_table("items", |table| {
        let items = items(table, rules.as_ref());
        let ledger = table.optional::<String>("ledger");
        (ledger.map(|ledger| table.name(&ledger, "ledger", |_| false)), items)
    });
    let (ledger, rules) = read.unwrap_or_else(|| (None, rules.unwrap_or_else(nothing)));
    ItemsMode {
        ledger: ledger.unwrap_or_else(|| name.to_owned()),
        rules,
        duplicates,
        outcome,
        on_unknown,
        record,
        dialect: base.dialect,
    }
}

/// `true` for the profile `capillary`.
fn profile(route: &TableReader<'_>) -> bool {
    let of_requests = |name: &str| matches!(name, "stripe" | "redeemsg");
    if let Some(profile) = route.optional::<String>("profile").filter(|it| of_requests(&it.value)) {
        let what = format!(
            "profile = \"{}\" is about one key for each request; with mode = \"items\" use \
             \"capillary\", or none",
            profile.value
        );
        route.wrong(&profile, what);
        return false;
    }
    route.choice("profile", false, &[("ietf", Some(false)), ("capillary", Some(true))])
}

/// The rules that the tables of a route without a profile are read over.
fn nothing() -> ItemRules {
    ItemRules {
        at: Pointer::root(),
        single: false,
        id: Pointer::root(),
        quantity: None,
        max_items: MAX_ITEMS,
        max_quantity: MAX_QUANTITY,
        same: None,
        shared: None,
        serialize_by: Vec::new(),
        indivisible: Vec::new(),
        view: QuantityView::Cumulative,
        response: ResponseRules {
            at: Pointer::root(),
            single: false,
            by: Vec::new(),
            issued: IssuedRules::default(),
            requested: None,
            append: Vec::new(),
            not_issued: Vec::new(),
            retry: Vec::new(),
            finals: Vec::new(),
            unknown: Vec::new(),
        },
        render: RenderRules::default(),
        rule: RuleId::default(),
    }
}

fn items(table: &TableReader<'_>, profile: Option<&ItemRules>) -> ItemRules {
    let mut preset = profile.cloned().unwrap_or_else(nothing);
    let needed = |key, what: &str| {
        if profile.is_none() && !table.has(key) {
            table.missing(&[key], what);
        }
    };
    needed("at", "[route.items] has no `at`, a JSON pointer");
    let at = table.pointer("at").unwrap_or(preset.at);
    let single = table.flag("single", preset.single);
    needed("id", "[route.items] has no `id`, a JSON pointer");
    let id = table.pointer("id").unwrap_or(preset.id);
    if let Some(written) = table.optional::<String>("id").filter(|id| id.value.is_empty()) {
        table.wrong(&written, "`id` names the whole item; name the member that holds its id");
    }
    if profile.is_none() {
        // Left out, rows stand where the items stood.
        (preset.response.at, preset.response.single) = (at.clone(), single);
    }
    let views =
        [("cumulative", Some(QuantityView::Cumulative)), ("delta", Some(QuantityView::Delta))];
    let rules = ItemRules {
        quantity: table.pointer("quantity").or(preset.quantity),
        max_items: table.count("max_items", preset.max_items, 1..=MOST_ITEMS),
        max_quantity: table.number("max_quantity", preset.max_quantity, 1..=MOST_UNITS),
        same: table.pointers("same").or(preset.same),
        shared: table.pointers("shared").or(preset.shared),
        serialize_by: table.pointers("serialize_by").unwrap_or(preset.serialize_by),
        indivisible: matchers(table, "indivisible", MatchScope::Item).unwrap_or(preset.indivisible),
        view: table.choice("view", preset.view, &views),
        response: table
            .optional_table("response", |table| response(table, preset.response.clone()))
            .unwrap_or(preset.response),
        render: table.table("render", |table| render(table, preset.render)),
        at,
        single,
        id,
        rule: RuleId::default(),
    };
    needed(
        "response",
        "[route.items] has no [route.items.response], which says how the backend's answer is read",
    );
    consistency::members(table, &rules);
    consistency::templates(table, &rules);
    rules.finished()
}

fn response(table: &TableReader<'_>, preset: ResponseRules) -> ResponseRules {
    let of_row = |key| matchers(table, key, MatchScope::Row);
    let rules = ResponseRules {
        at: table.pointer("at").unwrap_or(preset.at),
        single: table.flag("single", preset.single),
        by: match_by(table).unwrap_or(preset.by),
        issued: table.optional_table("issued", issued).unwrap_or(preset.issued),
        requested: table.pointer("requested").or(preset.requested),
        append: table.pointers("append").unwrap_or(preset.append),
        not_issued: of_row("not_issued").unwrap_or(preset.not_issued),
        retry: of_row("retry").unwrap_or(preset.retry),
        finals: of_row("final").unwrap_or(preset.finals),
        unknown: of_row("unknown").unwrap_or(preset.unknown),
    };
    consistency::response(table, &rules);
    rules
}

fn issued(table: &TableReader<'_>) -> IssuedRules {
    let rules = IssuedRules {
        count: table.pointer("count"),
        arrays: table.pointers("arrays").unwrap_or_default(),
        all: matchers(table, "all", MatchScope::Row).unwrap_or_default(),
    };
    if rules.count.is_none() && rules.arrays.is_empty() && rules.all.is_empty() {
        table.missing(&["count", "arrays", "all"], consistency::NOTHING_COUNTED);
    }
    rules
}

/// The ways from a row to the item.
fn match_by(table: &TableReader<'_>) -> Option<Vec<MatchBy>> {
    let mut ways = Vec::new();
    for written in table.filled_list::<String>("match", "name at least one way")? {
        let text = written.value.as_str();
        let way = match text.split_once(':') {
            Some(("id", at)) => Pointer::parse(at).ok().map(MatchBy::Id),
            Some(("member", at)) => Pointer::parse(at).ok().map(MatchBy::Member),
            None if text == "position" => Some(MatchBy::Position),
            Some(_) | None => None,
        };
        match way {
            None => {
                let what = format!(
                    "`match` cannot be \"{text}\"; use \"id:/pointer\", \"member:/pointer\" or \
                     \"position\""
                );
                table.wrong(&written, what);
            }
            Some(MatchBy::Id(_)) if ways.iter().any(|way| matches!(way, MatchBy::Id(_))) => {
                table.wrong(&written, "`match` names two ids; a row has one");
            }
            Some(way) if ways.contains(&way) => {
                table.wrong(&written, format!("`match` names \"{text}\" twice"));
            }
            Some(way) => ways.push(way),
        }
    }
    Some(ways)
}
