//! The tables of a route in items mode, over the presets of its profile. `items_response` reads the
//! answer's table, `items_parts` the templates, `matcher` the matchers; `items_consistency` checks
//! that the keys agree.

use super::callers::TenantConfig;
use super::items_consistency as consistency;
use super::items_parts::render;
use super::items_response::response;
use super::list_paths::list_kind;
use super::matcher::{MatchScope, matchers};
use super::model::{Config, ItemsMode, RecordRules, UpstreamConfig};
use super::outcome::outcome;
use super::own_requests::PolicyContext;
use super::place::is_credential;
use super::policy::UnknownPolicy;
use super::profiles::Profile;
use super::settlement::policy;
use super::table::TableReader;
use super::{capillary, request};
use crate::idempotency::fingerprint::RuleId;
use crate::idempotency::key::{KeyPlaces, KeyRules};
use crate::idempotency::retention::{Keep, Retention};
use crate::items::list_path::ListPath;
use crate::items::rules::{
    ItemId, ItemRules, ListKind, MAX_ITEMS, MAX_QUANTITY, QuantityView, RenderRules, ResponseRules,
};
use crate::json::Pointer;
use crate::place::{BodyFormat, Place};

/// The largest `max_items`: a batch is claimed in a single write.
const MOST_ITEMS: u64 = 10_000;
/// The largest `max_quantity`: beyond, JSON readers with floating point confuse neighbors.
const MOST_UNITS: u64 = 1 << 53;

/// The mode of the route called `name`, whose callers are named by `callers`.
pub(super) fn mode(
    route: &TableReader<'_>,
    name: &str,
    (config, callers): (&Config, &TenantConfig),
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
    let (outcome, chosen) = route.table("outcome", |table| outcome(table, &base.outcome));
    let path = request::path(route);
    let context = PolicyContext { credentials: &callers.headers, items: true, path: &path };
    let on_unknown = policy(route, chosen, &context);
    policy_of_items(route, &on_unknown);
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
        let ledger = ledger.map(|ledger| table.name(&ledger, "ledger", |_| false));
        let batch_key = batch_key(table, (&base.key, callers, &path));
        let (serialize_by, serialize_places) = serialize_by(table, items.serialize_by, &path);
        let items = ItemRules { serialize_by, ..items };
        if items.id == ItemId::ListPosition && !table.has("batch") {
            let what = "`id = \"position\"` needs `batch`, the batch's own key, such as \
                        \"header:Idempotency-Key\": a position alone is the id of an item in \
                        every batch";
            table.missing_at(table.place("id"), &["batch"], what);
        }
        (ledger, batch_key, serialize_places, items)
    });
    let (ledger, batch_key, serialize_places, rules) =
        read.unwrap_or_else(|| (None, None, Vec::new(), rules.unwrap_or_else(nothing)));
    ItemsMode {
        ledger: ledger.unwrap_or_else(|| name.to_owned()),
        batch_key,
        rules,
        serialize_places,
        duplicates,
        outcome,
        on_unknown,
        record,
        dialect: base.dialect,
    }
}

/// `batch`: the place of the batch's own key, under the rules of a request's key.
fn batch_key(
    table: &TableReader<'_>,
    (rules, callers, path): (&KeyRules, &TenantConfig, &str),
) -> Option<KeyRules> {
    let places = table.request_places("batch")?;
    if let [_, second, ..] = places.as_slice() {
        table.wrong(second, "`batch` is one place, that of the batch's own key");
    }
    let place = places.into_iter().next()?;
    table.check_parameter(&place, path);
    if let Some(name) = place.value.header()
        && is_credential(name, &callers.headers)
    {
        let what = format!("`batch` names {name}, a credential; no key is made of one");
        table.wrong(&place, what);
    }
    if let Some(format @ (BodyFormat::Form | BodyFormat::Xml)) = place.value.body_format() {
        let what = format!("the body of a batch is JSON, and `batch` looks for {format} there");
        table.wrong(&place, what);
    }
    Some(KeyRules { places: KeyPlaces::new(vec![place.value]), ..rules.clone() })
}

/// `serialize_by`: members of the body, and places outside of the body.
fn serialize_by(
    table: &TableReader<'_>,
    preset: Vec<Pointer>,
    path: &str,
) -> (Vec<Pointer>, Vec<Place>) {
    let Some(written) = table.request_places("serialize_by") else { return (preset, Vec::new()) };
    let (mut pointers, mut places) = (Vec::new(), Vec::new());
    for place in written {
        table.check_parameter(&place, path);
        match place.value {
            Place::Pointer(pointer) => pointers.push(pointer),
            Place::Header(_) | Place::Path(_) | Place::Query(_) => places.push(place.value),
            Place::Form(_) | Place::Xml(_) => {
                let what = format!(
                    "the body of a batch is JSON, and `serialize_by` looks for {} there",
                    place.value
                );
                table.wrong(&place, what);
            }
        }
    }
    (pointers, places)
}

/// `true` for the profile `capillary`.
/// Refuses the keys of a policy that have no meaning for one item of a batch.
fn policy_of_items(route: &TableReader<'_>, policy: &UnknownPolicy) {
    let response = "with mode = \"items\" `response` has no use: the row of a settled item comes \
                    from [route.items.response]; leave it out";
    match policy {
        UnknownPolicy::Resend(rules) => {
            if rules.mark.header.is_some() {
                let what = "with mode = \"items\" `mark.header` would mark the whole batch, also \
                            the items that are sent for the first time; use `mark.body`, whose \
                            pointers start at the repeated item";
                route.wrong_at(&["resend"], what);
            }
            if rules.already_done.as_ref().is_some_and(|done| done.response.is_some()) {
                route.wrong_at(&["already_done"], response);
            }
        }
        UnknownPolicy::Probe(rules) if rules.already_done.is_some() => {
            let what = "with mode = \"items\" [route.already_done] belongs to on_unknown = \
                        \"resend\"; with \"probe\" leave it out";
            route.wrong_at(&["already_done"], what);
        }
        UnknownPolicy::Reverse(rules) if rules.response.is_some() => {
            route.wrong_at(&["reverse"], response);
        }
        UnknownPolicy::Hold | UnknownPolicy::Probe(_) | UnknownPolicy::Reverse(_) => {}
    }
}

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
        at: ListPath::from(Pointer::root()),
        kind: ListKind::Array,
        id: ItemId::Member(Pointer::root()),
        quantity: None,
        max_items: MAX_ITEMS,
        max_quantity: MAX_QUANTITY,
        same: None,
        shared: None,
        serialize_by: Vec::new(),
        indivisible: Vec::new(),
        view: QuantityView::Cumulative,
        response: ResponseRules { at: vec![ListPath::from(Pointer::root())], ..Default::default() },
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
    let at = table.list_path("at").unwrap_or(preset.at);
    let kind = list_kind(table, preset.kind);
    if kind != ListKind::Map {
        needed("id", "[route.items] has no `id`, a JSON pointer or \"position\"");
    }
    let id = item_id(table, kind).unwrap_or(preset.id);
    if profile.is_none() {
        // Left out, rows stand where the items stood.
        (preset.response.at, preset.response.kind) = (vec![at.clone()], kind);
    }
    let views =
        [("cumulative", Some(QuantityView::Cumulative)), ("delta", Some(QuantityView::Delta))];
    let rules = ItemRules {
        quantity: table.pointer("quantity").or(preset.quantity),
        max_items: table.count("max_items", preset.max_items, 1..=MOST_ITEMS),
        max_quantity: table.number("max_quantity", preset.max_quantity, 1..=MOST_UNITS),
        same: table.pointers("same").or(preset.same),
        shared: table.list_paths("shared").or(preset.shared),
        serialize_by: preset.serialize_by,
        indivisible: matchers(table, "indivisible", MatchScope::Item).unwrap_or(preset.indivisible),
        view: table.choice("view", preset.view, &views),
        response: table
            .optional_table("response", |table| response(table, preset.response.clone()))
            .unwrap_or(preset.response),
        render: table.table("render", |table| render(table, preset.render)),
        at,
        kind,
        id,
        rule: RuleId::default(),
    };
    needed(
        "response",
        "[route.items] has no [route.items.response], which says how the backend's answer is read",
    );
    consistency::shape(table, &rules);
    consistency::members(table, &rules);
    consistency::templates(table, &rules);
    rules.finished()
}

/// The source of the ids; `None`: the key is not in the file.
fn item_id(table: &TableReader<'_>, kind: ListKind) -> Option<ItemId> {
    let written = table.optional::<String>("id");
    if kind == ListKind::Map {
        if let Some(written) = &written {
            table.wrong(written, "with `map = true` the names are the ids; remove `id`");
        }
        return Some(ItemId::Name);
    }
    let written = written?;
    match written.value.as_str() {
        "position" => return Some(ItemId::ListPosition),
        "" => {
            table.wrong(&written, "`id` names the whole item; name the member that holds its id");
        }
        _ => {}
    }
    table.parsed_pointer(&written).map(ItemId::Member)
}
