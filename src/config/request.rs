//! The tables of a route in request mode, over the presets of its profile. Duplicates, outcomes and
//! records are the same in items mode.

use std::time::Duration;

use super::callers::TenantConfig;
use super::model::{Config, DuplicateRules, RecordRules, RequestMode, UpstreamConfig};
use super::outcome::outcome;
use super::own_requests::PolicyContext;
use super::place::is_credential;
use super::policy::UnknownPolicy;
use super::profiles::Profile;
use super::settlement::policy;
use super::suspect::suspect;
use super::table::{Located, TableReader};
use super::units::Time;
use super::values::{LARGEST_BODY, LONGEST_WAIT};
use crate::idempotency::fingerprint::{BodyCompare, FingerprintRules, Select, Selection};
use crate::idempotency::key::{Format, KeyPlaces, KeyRules, Scope, Syntax};
use crate::place::Place;

/// The ways to compare a body that a file can name.
const BODIES: [BodyCompare; 6] = [
    BodyCompare::Json,
    BodyCompare::Form,
    BodyCompare::Multipart,
    BodyCompare::Xml,
    BodyCompare::Raw,
    BodyCompare::Ignore,
];
/// Characters of a hyphenated UUID.
const UUID_LENGTH: usize = 36;
/// Duplicates that may wait at once on a route, at most.
const MOST_WAITERS: u64 = 10_000_000;
/// Characters of the longest key, at most.
const MOST_CHARACTERS: u64 = 1024;

pub(super) fn mode(
    route: &TableReader<'_>,
    config: &Config,
    callers: &TenantConfig,
    upstream: Option<&UpstreamConfig>,
) -> RequestMode {
    let preset = profile(route).request_mode(config.store.retention);
    let path = path(route);
    let key = route.table("key", |table| key(table, preset.key, callers, &path));
    let fingerprint = route.table("fingerprint", |table| fingerprint(table, preset.fingerprint));
    let duplicates =
        route.table("duplicates", |table| duplicates(table, preset.duplicates, upstream));
    let (outcome, chosen) = route.table("outcome", |table| outcome(table, &preset.outcome));
    let context = PolicyContext { credentials: &config.tenant.headers, items: false, path: &path };
    let on_unknown = policy(route, chosen, &context);
    let record = route.table("record", |table| record(table, preset.record, config, &path));
    let mode = RequestMode {
        key,
        fingerprint,
        duplicates,
        outcome,
        on_unknown,
        suspect: suspect(route, !record.subject.is_empty()),
        record,
        observes: false,
        dialect: preset.dialect,
    };
    if let (UnknownPolicy::Resend(_), false) = (&mode.on_unknown, mode.key.forward)
        && mode.key.places.header().is_some()
    {
        let what = "a lost request is sent again, but the backend does not see its key; unless it \
                    deduplicates by the body, write forward = true in [route.key]";
        route.warn(route.place("resend"), what);
    }
    if route.has("items") {
        let what = "[route.items] needs mode = \"items\": with one key for each request, a partial \
                    result would be replayed for ever";
        route.wrong_at(&["items"], what);
    }
    mode
}

/// The path of a route, whose parameters places may name.
pub(super) fn path(route: &TableReader<'_>) -> String {
    route.optional::<String>("path").map(|path| path.value).unwrap_or_default()
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

fn key(table: &TableReader<'_>, preset: KeyRules, callers: &TenantConfig, path: &str) -> KeyRules {
    let places = key_places(table, callers, path).unwrap_or_else(|| {
        if let Some(name) = preset.places.header()
            && callers.headers.contains(name)
        {
            // A quoted key and a bare one are the same key, and would be two callers'.
            table.missing(&["header", "from", "pointer"], key_of_callers(name));
        }
        preset.places
    });
    if places.header().is_none() || table.has("pointer") {
        for (key, what) in [
            ("syntax", "`syntax` is about a key in a header; a key in another place has none"),
            (
                "forward",
                "`forward` is about a key in a header; other places go upstream as they are",
            ),
        ] {
            if table.has(key) {
                table.wrong_at(&[key], what);
            }
        }
    }
    if places.single().is_none() && table.has("format") {
        let what = "`format` is about one text; a composite key is joined from several";
        table.wrong_at(&["format"], what);
    }
    let scopes = [("tenant", Some(Scope::Tenant)), ("route", Some(Scope::Route))];
    let syntaxes = [("any", Some(Syntax::Any)), ("strict", Some(Syntax::Strict))];
    let formats = [("uuid", Some(Some(Format::Uuid)))];
    let lengths = 1..=MOST_CHARACTERS;
    let rules = KeyRules {
        places,
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

/// The places that `from` names, or one of its short forms; `None`: no place is in the file.
fn key_places(table: &TableReader<'_>, callers: &TenantConfig, path: &str) -> Option<KeyPlaces> {
    let (header, pointer) = (table.header("header"), table.pointer("pointer"));
    let from = table.request_places("from");
    let keys: Vec<&str> =
        ["from", "header", "pointer"].into_iter().filter(|key| table.has(key)).collect();
    if let [first, second, ..] = keys[..] {
        let what = match first {
            "from" => format!("`from` and `{second}` are both given; keep `from`"),
            _ => format!("`{first}` and `{second}` are both given; a key has one place"),
        };
        table.wrong_at(&[keys[0]], what);
    }
    let header =
        header.map(|name| Located { key: name.key, at: name.at, value: Place::Header(name.value) });
    let places = from.or(header.map(|place| vec![place])).unwrap_or_default();
    for place in &places {
        table.check_parameter(place, path);
        if let Place::Header(name) = &place.value
            && is_credential(name, &callers.headers)
        {
            let what = match callers.headers.contains(name) {
                true => key_of_callers(name),
                false => format!(
                    "{name} is a credential, and no part of a key: a renewed credential would be \
                     another key; name another place"
                ),
            };
            table.wrong(place, what);
        }
    }
    let places = places.into_iter().map(|place| place.value);
    let places: Vec<Place> = places.chain(pointer.map(Place::Pointer)).collect();
    (!places.is_empty()).then(|| KeyPlaces::new(places))
}

fn key_of_callers(name: &http::HeaderName) -> String {
    format!("{name} is one of [tenant] `headers`, so that every key would be another caller's")
}

fn fingerprint(table: &TableReader<'_>, preset: FingerprintRules) -> FingerprintRules {
    let bodies = BODIES.map(|body| (body.name().unwrap_or_default(), Some(body)));
    let body = table.choice("body", preset.body, &bodies);
    if table.has("include") && table.has("exclude") {
        let what = "`include` and `exclude` are both given; keep one of them";
        table.wrong_at(&["include"], what);
    }
    let select = match (selection(table, "include", body), selection(table, "exclude", body)) {
        (Some(selection), _) => Select::Include(selection),
        (None, Some(selection)) => Select::Exclude(selection),
        (None, None) => preset.select,
    };
    let headers = table.headers("headers").unwrap_or(preset.headers);
    let query = table.table("query", |query| {
        let names = query.list::<String>("exclude").unwrap_or_default();
        names.into_iter().map(|name| name.value).collect()
    });
    FingerprintRules::new(body, select, headers).excluding_query(query)
}

/// JSON pointers and names of form fields, of which those that have no use with `body` are
/// mistakes.
fn selection(table: &TableReader<'_>, key: &'static str, body: BodyCompare) -> Option<Selection> {
    let written = table.list::<String>(key)?;
    if let (BodyCompare::Raw | BodyCompare::Xml | BodyCompare::Ignore, Some(name)) =
        (body, body.name())
    {
        let what = format!("`{key}` has no use with body = \"{name}\"; remove one of them");
        table.wrong_at(&[key], what);
    }
    let mut selection = Selection::default();
    for name in written {
        let is_pointer = name.value.is_empty() || name.value.starts_with('/');
        let what = match body {
            BodyCompare::Json if !is_pointer => {
                format!("`{key}`: \"{0}\" is not a JSON pointer; write \"/{0}\"", name.value)
            }
            BodyCompare::Form | BodyCompare::Multipart if is_pointer => format!(
                "`{key}`: \"{}\" is a JSON pointer, but the body is a form; write the name of a \
                 field",
                name.value
            ),
            _ if is_pointer => {
                let Some(pointer) = table.parsed_pointer(&name) else { continue };
                if selection.pointers.contains(&pointer) {
                    table.wrong(&name, format!("`{key}` names {pointer} twice"));
                } else {
                    selection.pointers.push(pointer);
                }
                continue;
            }
            _ if selection.fields.contains(&name.value) => {
                format!("`{key}` names {} twice", name.value)
            }
            _ => {
                selection.fields.push(name.value);
                continue;
            }
        };
        table.wrong(&name, what);
    }
    Some(selection)
}

pub(super) fn duplicates(
    table: &TableReader<'_>,
    preset: DuplicateRules,
    upstream: Option<&UpstreamConfig>,
) -> DuplicateRules {
    let wait = table.time("wait", preset.wait, Duration::ZERO..=LONGEST_WAIT);
    let max_waiters = table.count("max_waiters", preset.max_waiters, 0..=MOST_WAITERS);
    table.note_kind("answer_within", || "a duration; 1ms to 1d".to_owned());
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
        echo_headers: table.headers("echo_headers").unwrap_or(preset.echo_headers),
    }
}

/// `[route.record]` of a route with this path.
pub(super) fn record(
    table: &TableReader<'_>,
    preset: RecordRules,
    config: &Config,
    path: &str,
) -> RecordRules {
    let most = LARGEST_BODY.min(config.server.limits.buffered);
    let subject = match table.request_places("subject") {
        Some(places) => {
            places.iter().for_each(|place| table.check_parameter(place, path));
            places.into_iter().map(|place| place.value).collect()
        }
        None => preset.subject,
    };
    RecordRules {
        subject,
        max_stored_body: table.size("max_stored_body", preset.max_stored_body, 0..=most),
        retention: table.retention(preset.retention),
        keep_request: table.flag("keep_request", preset.keep_request),
    }
}
