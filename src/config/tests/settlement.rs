//! `on_unknown` and the tables of its policies: what is refused, and what to write instead.

use std::time::Duration;

use super::{ROUTE, read, request_mode, route_with};
use crate::config::UnknownPolicy;

#[track_caller]
fn refused(lines: &str, expected: &str) {
    let found = read(&format!("{ROUTE}{lines}")).expect_err(lines).to_string();
    assert!(found.contains(expected), "{lines}\n{found}");
}

const PROBE: &str = "[route.outcome]\non_unknown = \"probe\"\n[route.probe]\n";
const OBJECT: &str = "path = \"/s/{key}\"\nexecuted = { pointer = \"/ok\", equals = true }\n";

#[test]
fn a_probe_has_defaults() {
    let config = route_with(&format!("{PROBE}{OBJECT}"));
    let mode = request_mode(&config);
    let UnknownPolicy::Probe(rules) = &mode.on_unknown else { panic!("{:?}", mode.on_unknown) };
    assert_eq!(rules.request.method, http::Method::GET);
    assert_eq!((rules.min_age, rules.every), (Duration::from_secs(5), Duration::from_secs(30)));
    assert_eq!((rules.give_up_after, rules.concurrency), (Duration::from_secs(86_400), 4));
    assert!(rules.list.is_none() && rules.absent.is_none() && rules.response.is_none());
}

#[test]
fn a_table_goes_with_its_policy() {
    refused("[route.probe]\npath = \"/s\"\n", "[route.probe] belongs to on_unknown = \"probe\"");
    refused(
        "[route.resend]\nwithin = \"1h\"\n",
        "[route.resend] belongs to on_unknown = \"resend\"",
    );
    refused("[route.reverse]\npath = \"/v\"\n", "[route.reverse] belongs to on_unknown");
    refused(
        "[route.already_done]\nstatus = 409\n",
        "[route.already_done] belongs to on_unknown = \"resend\" or \"probe\"",
    );
    for policy in ["probe", "resend", "reverse"] {
        let lines = format!("[route.outcome]\non_unknown = \"{policy}\"\n");
        refused(&lines, &format!("on_unknown = \"{policy}\" needs [route.{policy}]"));
    }
}

#[test]
fn templates_that_reach_nowhere_are_refused() {
    let path = |path: &str| {
        format!("{PROBE}path = \"{path}\"\nexecuted = {{ pointer = \"/ok\", equals = true }}\n")
    };
    refused(&path("/s/{keys}"), "{keys} is no field");
    refused(&path("/s/{path:nowhere}"), "has no parameter \"nowhere\"");
    refused(&path("/s/{/a/*}"), "can never match");
    refused(&path("/s/{row:/id}"), "{row:/id} has no value here");
    refused(&path("/s/{body:/id}"), "{body:/id} has no value here");
    refused(&path("/s/{header:authorization}"), "is a credential, of which nothing is stored");
    refused(&path("/s/{header:x-api-key}"), "is a credential");
    refused(&path("s"), "a path starts with a single \"/\"");
    refused(&path("/s/{now-2x}"), "an offset is a sign");
    refused(&format!("{PROBE}{OBJECT}body = \"{{}}\"\n"), "`body` has no use with GET");
    refused(
        &format!("{PROBE}{OBJECT}method = \"POST\"\nbody = '{{\"a\":{{/a}}'\n"),
        "the text is not JSON",
    );
}

#[test]
fn probes_of_keyed_routes_are_refused() {
    let lines = "[route.outcome]\non_unknown = \"probe\"\n[route.probe]\nmethod = \"POST\"\n\
                 path = \"/v1/orders\"\nbody = '{\"a\":{/a}}'\n\
                 executed = { pointer = \"/ok\", equals = true }\n";
    refused(lines, "asks a path of route \"create\", whose requests have an effect");
}

#[test]
fn probes_of_keyed_routes_that_are_told_apart_by_their_requests_are_refused() {
    let lines = "when = { header = \"x-operation\", equals = \"create\" }\n\
                 [route.outcome]\non_unknown = \"probe\"\n[route.probe]\nmethod = \"POST\"\n\
                 path = \"/v1/orders\"\nbody = '{\"a\":{/a}}'\n\
                 executed = { pointer = \"/ok\", equals = true }\n";
    refused(lines, "asks a path of route \"create\", whose requests have an effect");
}

#[test]
fn lists_name_what_a_row_must_have() {
    let list = |more: &str| format!("{PROBE}{OBJECT}rows = \"/data\"\n{more}");
    let matching = "match = { \"/m\" = \"{/m}\" }\n";
    refused(&list(""), "a list needs `match`");
    refused(&list("match = {}\n"), "`match` is empty");
    refused(&list("match = { \"/m\" = \"x\" }\n"), "`match` names nothing of the request");
    refused(&list(&format!("{matching}window = {{ before = \"2m\" }}\n")), "`window` needs `at`");
    refused(&list(&format!("{matching}next = {{ pointer = \"/n\" }}\n")), "`next` is { pointer");
    refused(&format!("{PROBE}{OBJECT}{matching}"), "`match` is about a list");
    refused(&format!("{PROBE}path = \"/s/{{key}}\"\n"), "needs `executed`");
}

#[test]
fn absence_needs_a_control() {
    refused(&format!("{PROBE}{OBJECT}absent = {{ after = \"1m\" }}\n"), "`absent` needs `control`");
}

#[test]
fn effects_need_their_limits() {
    let resend = "[route.outcome]\non_unknown = \"resend\"\n[route.resend]\n";
    refused(resend, "needs `within`");
    refused(
        &format!("{resend}within = \"1h\"\nmark = {{ header = {{ name = \"x-a\" }} }}\n"),
        "`mark.header` needs `name` and `value`",
    );
    let reverse =
        "[route.outcome]\non_unknown = \"reverse\"\n[route.reverse]\npath = \"/v/{key}\"\n";
    refused(reverse, "needs `done`");
    refused(
        &format!("{reverse}done = {{ status = 200 }}\nresponse = {{ status = 402 }}\n"),
        "`response` has no use with then = \"release\"",
    );
}

#[test]
fn parts_of_a_policy_that_mean_nothing_for_one_item_are_refused() {
    let resend = "mode = \"items\"\n[route.outcome]\non_unknown = \"resend\"\n[route.resend]\n\
                  within = \"1h\"\n";
    let header = "mark = { header = { name = \"x-again\", value = \"1\" } }\n";
    refused(&format!("{resend}{header}"), "`mark.header` would mark the whole batch");
    let done =
        "[route.already_done]\nstatus = 409\nthen = \"succeed\"\nresponse = { status = 201 }\n";
    refused(&format!("{resend}{done}"), "with mode = \"items\" `response` has no use");
    refused(
        &format!("mode = \"items\"\n{PROBE}{OBJECT}[route.already_done]\nstatus = 409\n"),
        "with \"probe\" leave it out",
    );
    refused(
        "mode = \"items\"\n[route.outcome]\non_unknown = \"reverse\"\n[route.reverse]\n\
         path = \"/v/{key}\"\ndone = { status = 200 }\nthen = \"fail\"\n\
         response = { status = 410 }\n",
        "with mode = \"items\" `response` has no use",
    );
}
