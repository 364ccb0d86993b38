//! `oncegate try`: a dry run on samples, which sends nothing to the configured backend.

use std::path::Path;

use serde_json::Value;

use crate::support::gateway::{Exit, run};
use crate::support::{Backend, Setup};

const REQUEST: &str = "# a redemption\nPOST /v1/vouchers/redeem HTTP/1.1\nHost: api.example\n\
                       Content-Type: application/json\nX-Api-Key: s3cret\nIdempotency-Key: k-1\n\n{\"qr\":\"rsg:1\"}\n";

/// Runs `try` on samples and gives the exit and, of JSON, the report.
fn try_on(setup: &Setup, request: &str, answers: &[&str], json: bool) -> Exit {
    let config = setup.write_config();
    let write = |name: &str, text: &str| {
        let path = setup.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut arguments = vec!["try".to_owned(), "--config".to_owned(), config];
    arguments.extend(["--request".to_owned(), write("request.http", request)]);
    for (at, answer) in answers.iter().enumerate() {
        arguments.extend(["--answer".to_owned(), write(&format!("answer-{at}.http"), answer)]);
    }
    arguments.extend(json.then(|| "--json".to_owned()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(&arguments)
}

fn report(exit: &Exit) -> Value {
    serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:?}"))
}

#[test]
fn a_request_is_shown_as_read_sent_kept_and_replayed() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let exit = try_on(
        &setup,
        REQUEST,
        &["HTTP/1.1 200 OK\nContent-Type: application/json\n\n{\"ok\":1}\n"],
        true,
    );
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let report = report(&exit);
    assert_eq!(report["route"]["name"], "redeem");
    assert_eq!(report["route"]["mode"], "request");
    assert_eq!(report["records"][0]["key"], "k-1");
    assert_eq!(report["records"][0]["state"], "final");
    assert_eq!(report["records"][0]["fingerprint"].as_str().map(str::len), Some(64));
    let first = &report["tries"][0];
    assert_eq!(first["sent"][0]["target"], "/v1/vouchers/redeem");
    assert_eq!(first["sent"][0]["body"], "{\"qr\":\"rsg:1\"}");
    assert_eq!(first["client"]["status"], 200);
    assert_eq!(report["retry"]["sent"].as_array().map(Vec::len), Some(0));
    assert_eq!(report["retry"]["client"]["body"], "{\"ok\":1}");
    assert_eq!(report["lost"]["client"]["status"], 502);
    assert_eq!(report["retry_of_lost"]["client"]["status"], 409);
    assert!(!exit.stdout.contains("s3cret"), "{}", exit.stdout);
    assert_eq!(backend.calls(), 0);
    assert!(!setup.store_path().exists(), "the store of the configuration is untouched");
}

#[test]
fn an_answer_may_have_many_lines_and_a_target_no_fragment() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let lines: String = (0..1000).map(|line| format!("x-{line}: y\n")).collect();
    let exit = try_on(&setup, REQUEST, &[&format!("200\n{lines}\n{{}}")], true);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let shown = report(&exit)["retry"]["client"]["headers"].to_string();
    assert!(shown.contains("[\"x-999\",\"y\"]"), "{shown}");
    // The gateway refuses it with 400, which a client without fragments cannot show.
    let exit = try_on(&setup, &REQUEST.replace("redeem ", "redeem#x "), &["200"], true);
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("line 2: a target has no `#`"), "{exit:?}");
}

#[test]
fn people_read_a_line_for_each_step() {
    let backend = Backend::start();
    let setup = Setup::before(&backend)
        .redeem(r#"outcome.retry = [{ status = 200, pointer = "/busy", equals = true }]"#);
    let exit = try_on(&setup, REQUEST, &["200\n\n{\"busy\":true}", "200\n\n{\"ok\":1}"], false);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    for line in [
        "route     redeem, mode request, upstream backend",
        "key       k-1",
        "try 1     answer 200: the client reads 200 (not-executed); 1 request is sent",
        "try 2     answer 200: the client reads 200 (executed); 1 request is sent",
        "retry     the client reads 200 (replayed); nothing is sent",
        "lost      the client reads 502 (outcome-unknown); 1 request is sent",
        "  retry   the client reads 409 (outcome-unknown); nothing is sent",
    ] {
        assert!(exit.stdout.contains(line), "{line}\n{}", exit.stdout);
    }
}

#[test]
fn a_request_that_would_be_refused_is_exit_code_1() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    for (request, slug) in [
        (REQUEST.replace("Idempotency-Key: k-1\n", ""), "key-missing"),
        (REQUEST.replace("/redeem", "/redeem/no/such"), "no-route"),
    ] {
        let exit = try_on(&setup, &request, &["200\n\n{}"], true);
        assert_eq!(exit.code, Some(1), "{exit:?}");
        let refused = report(&exit)["refused"].as_str().unwrap_or_default().to_owned();
        assert!(refused.contains(slug) || refused.starts_with("405"), "{refused}");
    }
    let off = try_on(&setup, "GET /v1/anything", &["204"], true);
    assert_eq!(off.code, Some(0), "{off:?}");
    assert_eq!(report(&off)["route"]["mode"], "off");
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_batch_is_told_item_by_item_and_unreadable_rows_are_exit_code_1() {
    let backend = Backend::start();
    let issue = "name = \"issue\"\nmethods = [\"POST\"]\npath = \"/issue\"\nmode = \"items\"\nprofile = \"capillary\"";
    let setup = Setup::before(&backend).route(issue);
    let request = "POST /issue\nContent-Type: application/json\n\n{\"mobile\":\"1\",\"rewards\":[{\"rewardId\":\"R1\",\"quantity\":2,\"requestId\":\"a\"}]}";
    let row = |issued: u32| {
        format!(
            "200\nContent-Type: application/json\n\n{{\"status\":{{\"success\":true,\"code\":200}},\"rewards\":[{{\"rewardId\":\"R1\",\"requestId\":\"a\",\"quantity\":{issued}}}]}}"
        )
    };
    let exit = try_on(&setup, request, &[&row(1), &row(1)], true);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let reply = report(&exit);
    assert_eq!(
        reply["tries"][0]["sent"][0]["body"].as_str().map(|body| body.contains("\"quantity\":2")),
        Some(true)
    );
    assert_eq!(
        reply["tries"][1]["sent"][0]["body"].as_str().map(|body| body.contains("\"quantity\":1")),
        Some(true)
    );
    assert_eq!(reply["records"][0]["item"]["fulfilled"], 2);
    assert_eq!(reply["retry"]["sent"].as_array().map(Vec::len), Some(0));
    let unread = try_on(&setup, request, &["200\n\n{\"done\":true}"], true);
    assert_eq!(unread.code, Some(1), "{unread:?}");
    assert_eq!(report(&unread)["unread"].as_array().map(Vec::len), Some(1));
}

#[test]
fn samples_and_configurations_that_cannot_be_read_are_exit_code_2() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let exit = try_on(&setup, "not http", &[], true);
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("request.http: line 1"), "{}", exit.stderr);
    let absent = Path::new("no/such/file").to_str().unwrap();
    let config = setup.write_config();
    assert_eq!(run(&["try", "--config", &config, "--request", absent]).code, Some(2));
    assert_eq!(run(&["try", "--config", absent, "--request", absent]).code, Some(2));
}
