//! Evidence of objects and lists, as backends and the proxies in front of them answer.

use http::{HeaderMap, HeaderValue};

use super::conclude::{Conclusion, Evidence, conclude};
use super::evidence::{ProbeAnswer, RowSearch, of_object};
use super::interleaving_tests::{claimed, plan};
use super::rules::{Action, Occasion, StepKind, tick};
use crate::clock::Timestamp;
use crate::config::{ProbeRules, UnknownPolicy};
use crate::idempotency::Record;
use crate::idempotency::outcome::UnknownReason;
use crate::store::samples::T0;

const OBJECT: &str = "[route.outcome]\non_unknown = \"probe\"\n[route.probe]\npath = \"/list\"\n\
                      executed = { pointer = \"/state\", equals = \"done\" }\n\
                      not_executed = { pointer = \"/state\", equals = \"void\" }\n";
const LIST: &str = "rows = \"/data\"\nmatch = { \"/key\" = \"{key}\" }\n\
                    window = { at = \"/at\", before = \"2m\", after = \"2m\" }\n";

fn rules(toml: &str) -> ProbeRules {
    let UnknownPolicy::Probe(rules) = (*plan(toml).policy).clone() else { panic!("a probe") };
    (*rules).clone()
}

fn unknown() -> Record {
    claimed(T0, 1).lost(UnknownReason::Timeout, T0)
}

fn answer(status: u16, kind: &'static str, body: &str) -> ProbeAnswer {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
    ProbeAnswer { status, headers, body: body.into() }
}

/// The evidence of a list of pages, each a list of rows; an error: a page cannot be read.
fn of_pages(pages: &[&str]) -> Result<Evidence, String> {
    of_pages_at(pages, None)
}

/// Evidence as by [`of_pages`], with a `Date` of the backend's clock, in milliseconds from the gateway's.
fn of_pages_at(pages: &[&str], skew: Option<i64>) -> Result<Evidence, String> {
    let rules = rules(&format!("{OBJECT}{LIST}"));
    let record = unknown();
    let list = rules.list.as_ref().expect("a list");
    let mut search = RowSearch::new(list, &record, T0).map_err(|error| error.to_string())?;
    for rows in pages {
        let mut answer = answer(200, "application/json", &format!("{{\"data\":[{rows}]}}"));
        if let Some(skew) = skew {
            let at = Timestamp::from_millis(T0.as_millis().checked_add_signed(skew).unwrap());
            let date = HeaderValue::from_str(&at.to_http_date()).unwrap();
            answer.headers.insert(http::header::DATE, date);
        }
        search.page(&answer, (T0, T0))?;
    }
    Ok(search.evidence(&rules, &record, T0))
}

fn row(at: u64, more: &str) -> String {
    format!("{{\"key\":\"key-1\",\"state\":\"done\",\"at\":{at}{more}}}")
}

fn is_executed(evidence: &Evidence) -> bool {
    matches!(evidence, Evidence::Executed(_))
}

#[test]
fn an_absence_beside_a_clock_that_is_wrong_proves_nothing() {
    let other = row(T0.as_millis(), "").replace("key-1", "other");
    for (skew, is_absence) in [
        (None, true),
        (Some(0), true),
        (Some(-119_000), true),
        (Some(119_000), true),
        (Some(-3_600_000), false),
        (Some(3_600_000), false),
        (Some(-130_000), false),
        (Some(130_000), false),
    ] {
        let evidence = of_pages_at(&[&other, &other], skew).expect("a list");
        assert_eq!(evidence == Evidence::Absent, is_absence, "{skew:?}: {evidence:?}");
        // A row that is found proves the call all the same.
        let found = of_pages_at(&[&row(T0.as_millis(), "")], skew).expect("a list");
        assert!(is_executed(&found), "{skew:?}: {found:?}");
    }
}

#[test]
fn an_object_proves_only_what_data_says_once() {
    let rules = rules(OBJECT);
    let seen =
        |status, kind, body: &str| of_object(&rules, &unknown(), &answer(status, kind, body), T0);
    let json = "application/json";
    assert!(is_executed(&seen(200, json, "{\"state\":\"done\"}")));
    assert_eq!(seen(200, json, "{\"state\":\"void\"}"), Evidence::NotExecuted);
    assert_eq!(seen(404, json, "{}"), Evidence::Absent);
    assert_eq!(seen(404, "text/plain", ""), Evidence::Absent);
    for (status, kind, body) in [
        // A member that stands twice.
        (200, json, "{\"state\":\"void\",\"state\":\"done\"}"),
        (200, json, "{\"state\":\"done\""),
        (200, "text/html", "<html><p>We are back soon"),
        // Pages of a proxy in front of a backend that is away.
        (404, "text/html; charset=utf-8", "<html>Not Found</html>"),
        (404, "Text/HTML", ""),
        (404, "text/plain", " <!DOCTYPE html><html>"),
        (403, json, "{}"),
        (410, json, "{}"),
        (500, json, "{\"state\":\"done\"}"),
        (503, json, "{\"state\":\"void\"}"),
        (302, json, "{}"),
    ] {
        let evidence = seen(status, kind, body);
        assert!(matches!(evidence, Evidence::Nothing(_)), "{status} {kind} {body}: {evidence:?}");
    }
    let undecided = seen(200, json, "{\"state\":\"new\"}");
    assert!(matches!(undecided, Evidence::Undecided(_)), "{undecided:?}");
}

#[test]
fn of_a_list_one_matching_row_proves_and_two_do_not() {
    let now = T0.as_millis();
    let (one, later) = (row(now, ""), row(now + 1, ""));
    assert!(is_executed(&of_pages(&[&one]).unwrap()));
    assert!(is_executed(&of_pages(&["", &one, ""]).unwrap()));
    assert_eq!(of_pages(&["", ""]).unwrap(), Evidence::Absent);
    // Equal rows on one page are two executions.
    for rows in [format!("{one},{later}"), format!("{one},{one}")] {
        assert_eq!(of_pages(&[&rows]).unwrap(), Evidence::Several(2), "{rows}");
    }
    assert_eq!(of_pages(&[&one, &later]).unwrap(), Evidence::Several(2));
    // A page may begin with the last row of the page before.
    assert!(is_executed(&of_pages(&[&one, &one]).unwrap()));
    // Outside of the window, or with another key: no row of this call.
    let others =
        [row(now + 121_000, ""), row(now - 122_000, ""), row(now, "").replace("key-1", "key-2")];
    for other in others {
        assert_eq!(of_pages(&[&other]).unwrap(), Evidence::Absent, "{other}");
    }
}

#[test]
fn a_list_that_cannot_be_read_to_its_end_proves_nothing() {
    let now = T0.as_millis();
    assert!(of_pages(&[&row(now, ",\"state\":\"void\"")]).unwrap_err().contains("a member twice"));
    assert!(of_pages(&[&format!("{},", row(now, ""))]).unwrap_err().contains("no JSON"));
    // Microseconds are not taken for a far future, which would be outside of the window.
    for unreadable in [row(now * 1000, ""), row(now, "").replace("\"at\"", "\"on\"")] {
        let evidence = of_pages(&[&unreadable]).unwrap();
        assert!(matches!(evidence, Evidence::Undecided(_)), "{unreadable}: {evidence:?}");
    }
}

/// A replica with another configuration began to undo the call.
#[test]
fn a_call_that_is_being_reversed_is_not_settled_by_a_probe() {
    let probe = plan(OBJECT);
    let reverse = plan(
        "[route.outcome]\non_unknown = \"reverse\"\n[route.reverse]\nmethod = \"POST\"\n\
         path = \"/undo\"\ndone = { status = 200 }\n",
    );
    let (mut record, mut now) = (unknown(), T0);
    while !record.is_reversing() {
        match tick(&record, &reverse, now, Occasion::Schedule) {
            Action::Wait(at) if at > now => now = at,
            Action::Begin(StepKind::Reverse, next) => record = *next,
            other => panic!("{other:?}"),
        }
    }
    for evidence in [Evidence::Absent, Evidence::NotExecuted] {
        let Conclusion { next, settled, .. } = conclude(&record, &probe, (now, now), &evidence);
        assert_eq!(settled, None, "{evidence:?}");
        assert!(next.is_none_or(|next| next.is_unknown()), "{evidence:?}");
    }
}
