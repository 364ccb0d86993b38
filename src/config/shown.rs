//! Values as `oncegate check` shows them: durations and sizes in their text forms, URLs without
//! credentials. For `#[serde(serialize_with = "…")]` of the types in `model`.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::units::{Period, Secret, Size, Time};
use crate::idempotency::fingerprint::{FingerprintRules, Select};
use crate::idempotency::key::{Format, KeyRules, Scope, Syntax};
use crate::idempotency::outcome::{OutcomeRules, Verdict};
use crate::idempotency::retention::Retention;
use crate::listen_address::PeerSet;
use crate::place::Place;
use crate::problem::Dialect;
use crate::template::{Template, masked_target};

pub(super) fn text<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(super) fn optional_text<S: Serializer>(
    value: &Option<impl Display>,
    to: S,
) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(to)
}

/// Writes a single place as a text, several as a list.
pub(super) fn places<S: Serializer>(places: &[Place], to: S) -> Result<S::Ok, S::Error> {
    match places {
        [] => to.serialize_none(),
        [place] => to.collect_str(place),
        several => to.collect_seq(several),
    }
}

pub(super) fn texts<S: Serializer>(list: &[impl Display], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(list.iter().map(ToString::to_string))
}

pub(super) fn peers<S: Serializer>(peers: &PeerSet, to: S) -> Result<S::Ok, S::Error> {
    texts(&peers.0, to)
}

/// The target of a request that the gateway makes, without the values of its query: one may be a
/// secret.
pub(super) fn target<S: Serializer>(target: &Template, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&target.masked_target())
}

/// The same of a target without fields.
pub(super) fn path_and_query<S: Serializer>(
    target: &PathAndQuery,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(&masked_target(target.as_str()))
}

/// The fields in the body of a request that the gateway makes: a text may be a secret.
pub(super) fn own_body<S: Serializer>(body: &Option<Template>, to: S) -> Result<S::Ok, S::Error> {
    body.as_ref().map(Template::masked_text).serialize(to)
}

pub(super) fn header_values<S: Serializer>(
    list: &[http::HeaderValue],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(list.iter().map(|value| value.to_str().unwrap_or_default()))
}

pub(super) fn time<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Time(*time))
}

pub(super) fn optional_time<S: Serializer>(
    time: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    time.map(|time| Time(time).to_string()).serialize(to)
}

pub(super) fn size<S: Serializer>(
    bytes: &(impl Copy + TryInto<u64>),
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_str(&Size((*bytes).try_into().unwrap_or(u64::MAX)))
}

pub(super) fn optional_size<S: Serializer>(bytes: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    bytes.map(|bytes| Size(bytes).to_string()).serialize(to)
}

/// The keys `retention` and `tombstone`.
pub(super) fn retention<S: Serializer>(rules: &Retention, to: S) -> Result<S::Ok, S::Error> {
    let tombstone = Period(rules.tombstone).to_string();
    json!({ "retention": Period(rules.answer).to_string(), "tombstone": tombstone }).serialize(to)
}

pub(super) fn client_cert<S: Serializer>(
    files: &Option<(PathBuf, PathBuf)>,
    to: S,
) -> Result<S::Ok, S::Error> {
    files.as_ref().map(|(cert, key)| json!({ "cert": cert, "key": key })).serialize(to)
}

pub(super) fn durability<S: Serializer>(strict: &bool, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(durability_name(*strict))
}

pub(super) const fn durability_name(strict: bool) -> &'static str {
    if strict { "strict" } else { "relaxed" }
}

pub(super) fn store_url<S: Serializer>(url: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&without_credentials(url))
}

pub(super) fn store_urls<S: Serializer>(urls: &[Secret], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(urls.iter().map(without_credentials))
}

/// The part of a store's URL behind the credentials, without the options, which may hold a password
/// as well.
pub(super) fn without_credentials(url: &Secret) -> String {
    let url = url.expose();
    let place = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = place.split('?').next().unwrap_or_default();
    place.rsplit_once('@').map_or(place, |(_, place)| place).to_owned()
}

pub(super) fn key<S: Serializer>(rules: &KeyRules, to: S) -> Result<S::Ok, S::Error> {
    let (header, pointer) = match rules.places.single() {
        Some(Place::Header(name)) => (Some(name.to_string()), None),
        Some(Place::Pointer(pointer)) => (None, Some(pointer.to_string())),
        Some(_) | None => (None, None),
    };
    let shown = json!({
        "from": rules.places.iter().collect::<Vec<_>>(),
        "header": header,
        "pointer": pointer,
        "required": rules.required,
        "scope": match rules.scope { Scope::Tenant => "tenant", Scope::Route => "route" },
        "syntax": match rules.syntax { Syntax::Any => "any", Syntax::Strict => "strict" },
        "min_length": rules.min_length,
        "max_length": rules.max_length,
        "format": rules.format.map(|format| match format { Format::Uuid => "uuid" }),
        "forward": rules.forward,
    });
    shown.serialize(to)
}

pub(super) fn fingerprint<S: Serializer>(
    rules: &FingerprintRules,
    to: S,
) -> Result<S::Ok, S::Error> {
    let (include, exclude) = match &rules.select {
        Select::All => (None, None),
        Select::Include(selection) => (Some(selection.names().collect::<Vec<_>>()), None),
        Select::Exclude(selection) => (None, Some(selection.names().collect::<Vec<_>>())),
    };
    let shown = json!({
        "body": rules.body.name().unwrap_or("by media type"),
        "include": include,
        "exclude": exclude,
        "query": { "exclude": rules.query_exclude },
        "headers": strings(&rules.headers),
    });
    shown.serialize(to)
}

pub(super) fn outcome<S: Serializer>(rules: &OutcomeRules, to: S) -> Result<S::Ok, S::Error> {
    outcome_json(rules).serialize(to)
}

pub(super) fn outcome_json(rules: &OutcomeRules) -> Value {
    let entries = |verdict| -> Vec<Value> {
        let statuses = rules.entries().iter().filter(|(_, meaning)| *meaning == verdict);
        let matchers = rules.matchers().iter().filter(|(_, meaning)| *meaning == verdict);
        let statuses = statuses.map(|(pattern, _)| json!(pattern.to_string()));
        statuses.chain(matchers.map(|(matcher, _)| json!(matcher))).collect()
    };
    json!({
        "final": entries(Verdict::Final),
        "retry": entries(Verdict::Released),
        "pending": entries(Verdict::Pending),
        "unknown": entries(Verdict::Unknown),
    })
}

pub(super) fn dialect<S: Serializer>(dialect: &Dialect, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(dialect.name())
}

/// The texts of a list.
pub(super) fn strings<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}
