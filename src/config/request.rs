//! The tables of a route in request mode, over the presets of its profile. Duplicates, outcomes and
//! records are the same in items mode.

use std::time::Duration;

use super::model::{Config, DuplicateRules, RecordRules, RequestMode, UpstreamConfig};
use super::outcome::outcome;
use super::profiles::Profile;
use super::table::TableReader;
use super::units::Time;
use super::values::{LARGEST_BODY, LONGEST_WAIT};
use crate::idempotency::fingerprint::{BodyCompare, FingerprintRules, Select};
use crate::idempotency::key::{Format, KeyRules, KeySource, Scope, Syntax};

/// Characters of a hyphenated UUID.
const UUID_LENGTH: usize = 36;
/// Duplicates that may wait at once on a route, at most.
const MOST_WAITERS: u64 = 10_000_000;
/// Characters of the longest key, at most.
const MOST_CHARACTERS: u64 = 1024;

pub(super) fn mode(
    route: &TableReader<'_>,
    config: &Config,
    upstream: Option<&UpstreamConfig>,
) -> RequestMode {
    let preset = profile(route).request_mode(config.store.retention);
    let mode = RequestMode {
        key: route.table("key", |table| key(table, preset.key, config)),
        fingerprint: route.table("fingerprint", |table| fingerprint(table, preset.fingerprint)),
        duplicates: route
            .table("duplicates", |table| duplicates(table, preset.duplicates, upstream)),
        outcome: route.table("outcome", |table| outcome(table, &preset.outcome)),
        record: route.table("record", |table| record(table, preset.record, config)),
        dialect: preset.dialect,
    };
    if route.has("items") {
        let what = "[route.items] needs mode = \"items\": with one key for each request, a partial \
                    result would be replayed for ever";
        route.wrong_at(&["items"], what);
    }
    mode
}

fn profile(route: &TableReader<'_>) -> Profile {
    if let Some(profile) = route.optional::<String>("profile").filter(|it| it.value == "capillary")
    {
        let what = "profile = \"capillary\" is about batches whose items are fulfilled over \
                    several tries; write mode = \"items\"";
        route.wrong(&profile, what);
        return Profile::default();
    }
    let choices = [
        ("ietf", Some(Profile::Ietf)),
        ("stripe", Some(Profile::Stripe)),
        ("redeemsg", Some(Profile::RedeemSg)),
    ];
    route.choice("profile", Profile::default(), &choices)
}

fn key(table: &TableReader<'_>, preset: KeyRules, config: &Config) -> KeyRules {
    if table.has("header") && table.has("pointer") {
        let what = "`header` and `pointer` are both given; a key has one place";
        table.wrong_at(&["header"], what);
    }
    let header = table.header("header");
    if let Some(name) = header.as_ref().filter(|it| config.tenant.headers.contains(&it.value)) {
        let what = format!(
            "{} is one of [tenant] `headers`, so that every key would be another caller's",
            name.value
        );
        table.wrong(name, what);
    }
    let pointer = table.pointer("pointer");
    if table.has("pointer") {
        for (key, what) in [
            ("syntax", "`syntax` is about headers; a key in the body has none"),
            ("forward", "`forward` is about headers; a body goes upstream as it is"),
        ] {
            if table.has(key) {
                table.wrong_at(&[key], what);
            }
        }
    }
    let scopes = [("tenant", Some(Scope::Tenant)), ("route", Some(Scope::Route))];
    let syntaxes = [("any", Some(Syntax::Any)), ("strict", Some(Syntax::Strict))];
    let formats = [("uuid", Some(Some(Format::Uuid)))];
    let lengths = 1..=MOST_CHARACTERS;
    let rules = KeyRules {
        source: match (pointer, header) {
            (Some(pointer), _) => KeySource::Pointer(pointer),
            (None, Some(name)) => KeySource::Header(name.value),
            (None, None) => preset.source,
        },
        required: table.flag("required", preset.required),
        scope: table.choice("scope", preset.scope, &scopes),
        syntax: table.choice("syntax", preset.syntax, &syntaxes),
        min_length: table.count("min_length", preset.min_length, lengths.clone()),
        max_length: table.count("max_length", preset.max_length, lengths),
        format: table.choice("format", preset.format, &formats),
        forward: table.flag("forward", preset.forward),
    };
    let (least, most) = (rules.min_length, rules.max_length);
    if least > most {
        let what = format!("`min_length` ({least}) is more than `max_length` ({most})");
        table.wrong_at(&["min_length", "max_length"], what);
    } else if rules.format == Some(Format::Uuid) && !(least..=most).contains(&UUID_LENGTH) {
        let what = format!(
            "a UUID has {UUID_LENGTH} characters, which `min_length` ({least}) and `max_length` \
             ({most}) leave out"
        );
        table.wrong_at(&["format"], what);
    }
    rules
}

fn fingerprint(table: &TableReader<'_>, preset: FingerprintRules) -> FingerprintRules {
    let bodies = [("json", Some(BodyCompare::Json)), ("raw", Some(BodyCompare::Raw))];
    let body = table.choice("body", preset.body, &bodies);
    if table.has("include") && table.has("exclude") {
        let what = "`include` and `exclude` are both given; keep one of them";
        table.wrong_at(&["include"], what);
    }
    let select = match (table.pointers("include"), table.pointers("exclude")) {
        (Some(pointers), _) => Select::Include(pointers),
        (None, Some(pointers)) => Select::Exclude(pointers),
        (None, None) => preset.select,
    };
    for key in ["include", "exclude"] {
        if body == BodyCompare::Raw && table.has(key) {
            let what = format!("`{key}` has no use with body = \"raw\"; remove one of them");
            table.wrong_at(&[key], what);
        }
    }
    let headers = table.headers("headers").unwrap_or(preset.headers);
    FingerprintRules::new(body, select, headers)
}

pub(super) fn duplicates(
    table: &TableReader<'_>,
    preset: DuplicateRules,
    upstream: Option<&UpstreamConfig>,
) -> DuplicateRules {
    let wait = table.time("wait", preset.wait, Duration::ZERO..=LONGEST_WAIT);
    let max_waiters = table.count("max_waiters", preset.max_waiters, 0..=MOST_WAITERS);
    let written = table.has("answer_within");
    let answer_within = match written {
        true => Some(table.timeout("answer_within", Duration::ZERO)),
        false => preset.answer_within,
    };
    if let (Some(limit), true, Some(upstream)) = (answer_within, written, upstream)
        && limit > upstream.timeout
    {
        let what = format!(
            "`answer_within` ({}) is longer than the `timeout` of upstream \"{}\" ({}) and would \
             never matter",
            Time(limit),
            upstream.name,
            Time(upstream.timeout)
        );
        table.wrong_at(&["answer_within"], what);
    }
    let marker = table.header("replayed_header");
    DuplicateRules {
        wait,
        max_waiters,
        answer_within,
        replayed_header: marker.map_or(preset.replayed_header, |name| name.value),
    }
}

pub(super) fn record(table: &TableReader<'_>, preset: RecordRules, config: &Config) -> RecordRules {
    let most = LARGEST_BODY.min(config.server.limits.buffered);
    let subject = match table.has("subject") {
        true => table.pointer("subject"),
        false => preset.subject,
    };
    RecordRules {
        subject,
        max_stored_body: table.size("max_stored_body", preset.max_stored_body, 0..=most),
        retention: table.retention(preset.retention),
    }
}
