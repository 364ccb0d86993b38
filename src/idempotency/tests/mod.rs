//! Table tests of the rules.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fingerprint::{
    BodyCompare, ComparedBody, FingerprintRules, RequestParts, RuleId, Select, Selection,
};
use super::key::{Format, KeyError, KeyPlaces, KeyRules, Scope, Syntax};
use super::ledger::ItemOutcome;
use super::outcome::{OutcomeConflict, OutcomeRules, UnknownReason, Verdict};
use super::record::{Expiry, StoredResponse};
use super::retention::{Keep, Retention};
use super::*;
use crate::clock::Timestamp;
use crate::json::Pointer;
use crate::matcher::StatusPattern;
use crate::place::BodyForms;

mod bodies;
mod names;
mod outcome;
mod rules;
mod settle;
mod tenants;
mod verbatim;

fn rules() -> KeyRules {
    KeyRules {
        places: KeyPlaces::in_header(HeaderName::from_static("idempotency-key")),
        required: true,
        scope: Scope::Tenant,
        syntax: Syntax::Any,
        min_length: 1,
        max_length: 255,
        format: None,
        forward: false,
    }
}

#[track_caller]
fn check_key(rules: &KeyRules, line: &[u8], expected: Result<&str, KeyError>) {
    let key = rules.from_header_value(line);
    let key = key.as_ref().map(Key::as_str).map_err(|error| *error);
    assert_eq!(key, expected, "{}", String::from_utf8_lossy(line));
}

#[test]
fn the_rfc_9651_string_and_the_bare_value_name_the_same_key() {
    for line in [r#"k-1"#, r#""k-1""#, r#"  "k-1"  "#, r#""k-1";a=1;b="x,y""#, r#""k-1"; p"#] {
        check_key(&rules(), line.as_bytes(), Ok("k-1"));
    }
    check_key(&rules(), br#""a\"b\\c""#, Ok(r#"a"b\c"#));
}

#[test]
fn keys_that_are_not_one_key_are_refused() {
    let long = "k".repeat(256);
    for (line, error) in [
        (&b""[..], KeyError::TooShort),
        (b"   ", KeyError::TooShort),
        (br#""""#, KeyError::TooShort),
        (long.as_bytes(), KeyError::TooLong),
        (b"a b", KeyError::Characters),
        (b"a\tb", KeyError::Characters),
        ("schlüssel".as_bytes(), KeyError::Characters),
        (b"\xff", KeyError::Characters),
        (br#""a b""#, KeyError::Characters),
        (b"\"a\x7f\"", KeyError::Characters),
        (b"a,b", KeyError::Several),
        (br#""a", "b""#, KeyError::Several),
        (br#""a";x=1,"b""#, KeyError::Several),
        (br#""a"#, KeyError::Syntax),
        (br#""a"b"#, KeyError::Syntax),
        (br#""a\n""#, KeyError::Syntax),
        (br#"""#, KeyError::Syntax),
    ] {
        check_key(&rules(), line, Err(error));
    }
    check_key(&rules(), "k".repeat(255).as_bytes(), Ok(&"k".repeat(255)));
}

#[test]
fn strict_syntax_takes_only_the_string_and_uuid_only_a_uuid() {
    let strict = KeyRules { syntax: Syntax::Strict, ..rules() };
    check_key(&strict, b"k", Err(KeyError::Syntax));
    check_key(&strict, b"\"k\"", Ok("k"));
    check_key(&strict, b"\"k\"; a=?1", Ok("k"));
    check_key(&strict, b"\"k\";A=1", Err(KeyError::Syntax));
    let uuid = KeyRules { format: Some(Format::Uuid), ..rules() };
    check_key(&uuid, b"k", Err(KeyError::Format));
    let text = "018f4a3e-7c1b-7d2e-9f00-0123456789aB";
    check_key(&uuid, text.as_bytes(), Ok(&text.to_lowercase()));
    check_key(&uuid, text.to_uppercase().as_bytes(), Ok(&text.to_lowercase()));
    check_key(&uuid, b"018f4a3e07c1b-7d2e-9f00-0123456789ab", Err(KeyError::Format));
    check_key(&KeyRules { min_length: 8, ..rules() }, b"short", Err(KeyError::TooShort));
}

#[test]
fn two_lines_are_several_keys_and_none_is_missing() {
    let name = HeaderName::from_static("idempotency-key");
    let mut headers = HeaderMap::new();
    assert_eq!(rules().from_headers(&name, &headers), Err(KeyError::Missing));
    headers.append(&name, HeaderValue::from_static("a"));
    assert_eq!(rules().from_headers(&name, &headers).unwrap().as_str(), "a");
    headers.append(&name, HeaderValue::from_static("a"));
    assert_eq!(rules().from_headers(&name, &headers), Err(KeyError::Several));
}

#[test]
fn the_most_specific_outcome_entry_wins() {
    use StatusPattern::{Class, Exact};
    use Verdict::{Final, Released, Unknown};
    let rules = OutcomeRules::new(vec![
        (Class(2), Final),
        (Class(4), Final),
        (Exact(429), Released),
        (Class(5), Unknown),
        (Exact(409), Unknown),
        (Exact(503), Final),
    ])
    .unwrap();
    for (status, verdict) in [
        (200, Final),
        (299, Final),
        (404, Final),
        (409, Unknown),
        (429, Released),
        (500, Unknown),
        (503, Final),
        (302, Unknown),
        (101, Unknown),
        (100, Unknown),
    ] {
        assert_eq!(rules.verdict(status), verdict, "{status}");
    }
    let twice = vec![(Exact(409), Final), (Exact(409), Unknown)];
    assert_eq!(OutcomeRules::new(twice), Err(OutcomeConflict(Exact(409))));
    // Not even a rule for 1xx can make 101 final: the backend left HTTP.
    let upgraded = OutcomeRules::new(vec![(Class(1), Final), (Exact(101), Final)]).unwrap();
    assert_eq!(upgraded.verdict(101), Unknown);
}

/// A fingerprint with this digest, of no rule in particular.
fn prints(digest: [u8; 32]) -> Fingerprint {
    let rule = RuleId::default();
    Fingerprint { digest, verbatim: digest, rule, members: Arc::default() }
}

fn fingerprint_rules(select: Select) -> FingerprintRules {
    FingerprintRules::new(BodyCompare::ByMediaType, select, Vec::new())
}

/// The fingerprint of a POST with a JSON body.
fn of(rules: &FingerprintRules, body: &str) -> Fingerprint {
    of_request(rules, "application/json", "/v1/redeem", None, [1; 16], body.as_bytes())
}

fn of_request(
    rules: &FingerprintRules,
    media: &'static str,
    path: &str,
    query: Option<&str>,
    tenant: [u8; 16],
    body: &[u8],
) -> Fingerprint {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(media));
    let tenant = TenantId::from_bytes(tenant);
    let parts = RequestParts {
        method: "POST",
        path,
        query,
        headers: &headers,
        tenant: &tenant,
        body,
        compared: ComparedBody::Raw(body),
        is_decoded: false,
    };
    fingerprint(rules, &parts)
}

/// The fingerprint of a request with its body as the rules compare it.
fn fingerprint(rules: &FingerprintRules, parts: &RequestParts<'_>) -> Fingerprint {
    let forms = BodyForms::new(parts.headers, parts.body);
    let compared = rules.body.of(parts.headers, &forms, false);
    rules.preimage(&RequestParts { compared, ..*parts }).fingerprint(parts.tenant)
}

#[test]
fn every_part_of_a_request_counts() {
    let rules = fingerprint_rules(Select::All);
    let json = "application/json";
    let base = of_request(&rules, json, "/a", Some("x=1"), [1; 16], b"{}");
    for (what, other) in [
        ("path", of_request(&rules, json, "/b", Some("x=1"), [1; 16], b"{}")),
        ("query", of_request(&rules, json, "/a", Some("x=2"), [1; 16], b"{}")),
        ("no query", of_request(&rules, json, "/a", None, [1; 16], b"{}")),
        ("tenant", of_request(&rules, json, "/a", Some("x=1"), [2; 16], b"{}")),
        ("body", of_request(&rules, json, "/a", Some("x=1"), [1; 16], b"[]")),
        ("media type", of_request(&rules, "application/xml", "/a", Some("x=1"), [1; 16], b"{}")),
        ("moved", of_request(&rules, json, "/ax=1", None, [1; 16], b"{}")),
    ] {
        assert_ne!(base.digest, other.digest, "{what}");
    }
    let charset = "Application/JSON; charset=utf-8";
    let same = of_request(&rules, charset, "/a", Some("x=1"), [1; 16], b" { } ");
    assert_eq!(base.digest, same.digest);
}

#[test]
fn bodies_with_duplicate_names_or_without_json_are_compared_raw() {
    let rules = fingerprint_rules(Select::All);
    let twice = of(&rules, r#"{"a":1,"a":2}"#);
    assert_ne!(twice.digest, of(&rules, r#"{"a":1, "a":2}"#).digest);
    assert_eq!(twice.digest, of(&rules, r#"{"a":1,"a":2}"#).digest);
    let broken = of(&rules, r#"{"a":"#);
    assert_ne!(broken.digest, of(&rules, r#"{"a": "#).digest);
    let text = |body: &[u8]| of_request(&rules, "text/plain", "/", None, [1; 16], body).digest;
    assert_ne!(text(b"{}"), text(b"{ }"));
}

fn pointers(list: &[&str]) -> Selection {
    Selection::of_json(list.iter().map(|at| Pointer::parse(at).unwrap()).collect())
}

#[test]
fn excluded_members_do_not_count_and_only_included_ones_do() {
    let excluding = fingerprint_rules(Select::Exclude(pointers(&["/sent_at", "/o/noise"])));
    let base = of(&excluding, r#"{"qr":"x","sent_at":1,"o":{"a":1,"noise":1}}"#);
    let same = of(&excluding, r#"{"qr":"x","o":{"noise":[2],"a":1}}"#);
    assert_eq!(base.digest, same.digest);
    assert!(base.differing(&same).is_empty());
    let other = of(&excluding, r#"{"qr":"y","o":{"a":2}}"#);
    assert_eq!(base.differing(&other), ["o", "qr"]);

    let including = fingerprint_rules(Select::Include(pointers(&["/qr", "/o/a"])));
    let base = of(&including, r#"{"qr":"x","free":1,"o":{"a":1}}"#);
    assert_eq!(base.digest, of(&including, r#"{"qr":"x","free":2,"o":{"a":1,"b":2}}"#).digest);
    assert_ne!(base.digest, of(&including, r#"{"qr":"x","o":{}}"#).digest);
    assert_ne!(base.digest, of(&including, r#"{"qr":"x","qr":"x","o":{"a":1}}"#).digest);
}

#[test]
fn differing_members_are_named_whichever_side_has_them() {
    let rules = fingerprint_rules(Select::All);
    let first = of(&rules, r#"{"qr":"x","metadata":"m","only_here":1}"#);
    let second = of(&rules, r#"{"metadata":"m2","qr":"x","only_there":1}"#);
    assert_eq!(first.differing(&second), ["metadata", "only_here", "only_there"]);
}

#[test]
fn no_member_is_named_of_bodies_that_cannot_be_compared_by_members() {
    let rules = fingerprint_rules(Select::All);
    let base = of(&rules, r#"{"qr":"x","amount":5}"#);
    for body in
        [r#"{"qr":"x","qr":"y","amount":5}"#, r#"{"qr":"x","amount":5"#, "", r#"{"\ud83d":1}"#]
    {
        let other = of(&rules, body);
        assert!(
            !base.is_same_request(&other) && other.is_same_request(&of(&rules, body)),
            "{body}"
        );
        assert_eq!(base.differing(&other), [""; 0], "{body}");
        assert_eq!(other.differing(&base), [""; 0], "{body}");
    }
    assert_eq!(base.differing(&of(&rules, "{}")), ["amount", "qr"]);
}

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn claimed() -> Record {
    Record {
        version: 7,
        tenant: TenantId::from_bytes([1; 16]),
        caller: None,
        route: "redeem".into(),
        key: "k".into(),
        subject: None,
        fingerprint: prints([1; 32]),
        first_seen: NOW,
        updated: NOW,
        attempts: 1,
        attempt: [2; 16],
        owner: [3; 16],
        state: State::InFlight,
        settlement_unreported: false,
        history: Vec::new(),
        settling: None,
    }
}

fn kept() -> Answer {
    Answer::Kept(Arc::new(StoredResponse {
        status: 200,
        headers: Vec::new(),
        body: Bytes::from_static(b"ok"),
    }))
}

fn completed(answer: Keep, tombstone: Keep) -> Record {
    claimed().completed(kept(), Retention { answer, tombstone }, NOW)
}

#[test]
fn what_a_record_means_for_a_request() {
    let same = prints([1; 32]);
    let other = prints([9; 32]);
    let later = |hours: u32| NOW.saturating_add(HOUR * hours);
    let normal = completed(Keep::For(HOUR), Keep::For(HOUR));
    let no_tombstone = completed(Keep::For(HOUR), Keep::For(Duration::ZERO));
    let for_ever = completed(Keep::Forever, Keep::For(HOUR));
    let large = claimed().completed(
        Answer::NotRetained { status: 201 },
        Retention { answer: Keep::For(HOUR), tombstone: Keep::For(HOUR) },
        NOW,
    );
    let unknown = claimed().lost(UnknownReason::Timeout, NOW);
    let Expiry::Bury(tombstone) = normal.expired(later(1)) else { panic!("not buried") };
    let name = |record: Option<&Record>, fingerprint: &Fingerprint, now| match decide(
        record,
        fingerprint,
        now,
    ) {
        Decision::Forward { replacing: None } => "forward".to_owned(),
        Decision::Forward { replacing: Some(version) } => format!("forward over {version}"),
        Decision::Replay { response, .. } => format!("replay {}", response.status),
        Decision::NotRetained { status, .. } => format!("not retained {status}"),
        Decision::InProgress => "in fulfillment".to_owned(),
        Decision::Unknown => "unknown".to_owned(),
        Decision::Reused { .. } => "reused".to_owned(),
        Decision::Expired => "expired".to_owned(),
    };
    for (record, fingerprint, now, expected) in [
        (None, &same, NOW, "forward"),
        (Some(&claimed()), &same, NOW, "in fulfillment"),
        // However old: time alone never frees a claim.
        (Some(&claimed()), &same, later(u32::MAX), "in fulfillment"),
        (Some(&claimed()), &other, NOW, "reused"),
        (Some(&unknown), &same, later(u32::MAX), "unknown"),
        (Some(&unknown), &other, NOW, "reused"),
        (Some(&normal), &same, NOW, "replay 200"),
        (Some(&normal), &other, NOW, "reused"),
        (Some(&normal), &same, later(1), "expired"),
        (Some(&normal), &other, later(1), "reused"),
        (Some(&normal), &same, later(2), "forward over 8"),
        (Some(&no_tombstone), &same, later(1), "forward over 8"),
        (Some(&no_tombstone), &other, later(1), "forward over 8"),
        (Some(&for_ever), &same, later(u32::MAX), "replay 200"),
        (Some(&large), &same, NOW, "not retained 201"),
        (Some(&*tombstone), &same, later(1), "expired"),
        (Some(&*tombstone), &other, later(1), "reused"),
        (Some(&*tombstone), &same, later(2), "forward over 9"),
        // A clock that runs backward only keeps things longer.
        (Some(&normal), &same, Timestamp::from_millis(0), "replay 200"),
    ] {
        let state = record.map(|record| &record.state);
        assert_eq!(name(record, fingerprint, now), expected, "{state:?} at {now:?}");
    }
}

#[test]
fn only_what_is_settled_expires_and_versions_only_rise() {
    let far = Timestamp::from_millis(u64::MAX);
    assert_eq!(claimed().expired(far), Expiry::Keep);
    assert_eq!(claimed().lost(UnknownReason::ProcessEnded, NOW).expired(far), Expiry::Keep);
    assert_eq!(completed(Keep::Forever, Keep::Forever).expired(far), Expiry::Keep);
    let normal = completed(Keep::For(HOUR), Keep::For(HOUR));
    assert_eq!(normal.expired(NOW), Expiry::Keep);
    assert_eq!(normal.expired(far), Expiry::Forget);
    let kept_fact = completed(Keep::For(HOUR), Keep::Forever);
    let Expiry::Bury(tombstone) = kept_fact.expired(far) else { panic!("not buried") };
    assert_eq!(tombstone.expired(far), Expiry::Keep);
    assert_eq!((claimed().version, kept_fact.version, tombstone.version), (7, 8, 9));
    assert_eq!(tombstone.state, State::Tombstone { status: 200, completed: NOW, expires: None });
}

#[test]
fn of_an_item_only_what_is_done_expires_and_its_quantities_last_longer() {
    let far = Timestamp::from_millis(u64::MAX);
    let kept = Retention { answer: Keep::For(HOUR), tombstone: Keep::For(HOUR) };
    let record = |ledger: &Ledger| claimed().with_ledger(ledger.clone(), kept, NOW);
    let flying = Ledger::new(2).unwrap().claim(2).unwrap();
    let issued = |units| ItemOutcome::Issued {
        units,
        appended: Vec::new(),
        row: Some("{}".into()),
        closed: false,
    };
    let partial = flying.complete(&issued(1)).unwrap();
    let complete = flying.complete(&issued(2)).unwrap();
    for open in [&flying, &flying.lose(UnknownReason::Timeout).unwrap(), &partial] {
        assert_eq!((record(open).expires(), record(open).expired(far)), (None, Expiry::Keep));
    }
    let done = record(&complete);
    let end = NOW.saturating_add(HOUR);
    assert_eq!(done.expires(), Some(end));
    assert_eq!(done.expired(far), Expiry::Forget);
    let Expiry::Bury(bare) = done.expired(end) else { panic!("not buried") };
    assert_eq!(bare.ledger(), Some(&complete.bare()));
    assert_eq!(bare.ledger().map(Ledger::is_done), Some(true));
    assert_eq!(bare.expires(), Some(end.saturating_add(HOUR)));
    assert_eq!(bare.expired(end), Expiry::Keep);
    assert_eq!(bare.expired(end.saturating_add(HOUR)), Expiry::Forget);
}

#[test]
fn a_lost_item_holds_exactly_the_units_in_flight() {
    let kept = Retention { answer: Keep::Forever, tombstone: Keep::Forever };
    let record = |ledger: Ledger| claimed().with_ledger(ledger, kept, NOW);
    let flying = Ledger::new(3).unwrap().claim(2).unwrap();
    let lost = record(flying).lost(UnknownReason::ProcessEnded, NOW);
    let ledger = lost.ledger().unwrap();
    assert_eq!((ledger.in_flight, ledger.unknown, ledger.fulfilled), (0, 2, 0));
    // There is nothing to lose twice.
    let again = lost.lost(UnknownReason::ProcessEnded, NOW);
    assert_eq!((again.ledger(), again.version), (Some(ledger), lost.version + 1));
}

#[test]
fn ids_tell_tenants_scopes_and_keys_apart() {
    let one = TenantId::from_bytes([1; 16]);
    let two = TenantId::from_bytes([2; 16]);
    let base = RecordId::new(&one, "", "k");
    assert_eq!(base, RecordId::new(&one, "", "k"));
    for other in [
        RecordId::new(&two, "", "k"),
        RecordId::new(&one, "r", "k"),
        RecordId::new(&one, "", "rk"),
        RecordId::new(&one, "rk", ""),
    ] {
        assert_ne!(base, other);
    }
}
