//! Finding records in a dispute: by voucher, by time, by a key as the client spelled it; and what
//! an operator's shell does with it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::admin::Place;
use crate::support::gateway::BINARY;
use crate::support::{Act, AdminClient, Backend, Gateway, Request, Setup, TOKEN, answer};

fn setup(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend)).redeem("record.subject = \"/qr\"")
}

fn redeem(key: &str, voucher: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"qr":"{voucher}"}}"#))
}

fn keys(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["key"].as_str().unwrap()).collect()
}

#[test]
fn the_newest_record_comes_first_in_every_page_and_every_store() {
    Place::each(|place| {
        let backend = Backend::start();
        let gateways = place.start(&setup(&backend));
        let names: Vec<String> = (0..30).map(|n| format!("k-{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            // Callers spread the ids over the whole store.
            redeem(name, "v").tenant(&format!("till-{n}")).send(gateways[0].addr);
        }
        let admin = AdminClient::of(&gateways[gateways.len() - 1]);
        for limit in [1, 7, 30, 100] {
            let (mut listed, mut cursor) = (Vec::new(), String::new());
            loop {
                let (page, next) = admin.list(&format!("limit={limit}&cursor={cursor}"));
                listed.extend(page);
                let Some(next) = next else { break };
                cursor = next;
            }
            let times: Vec<_> =
                listed.iter().map(|it| it["first_seen"].as_str().unwrap()).collect();
            assert!(times.is_sorted_by(|one, other| one >= other), "{limit}: {times:?}");
            assert_eq!(listed.len(), 30, "{limit}");
        }
        // The limits of the time are those of the first claim, to the millisecond.
        let all = admin.list("").0;
        let (first, last) = (&all[29]["first_seen"], &all[0]["first_seen"]);
        let between = |since: &Value, until: &Value| {
            let (since, until) = (since.as_str().unwrap(), until.as_str().unwrap());
            admin.list(&format!("since={since}&until={until}")).0.len()
        };
        assert_eq!(between(first, last), 30);
        assert_eq!(between(last, first), usize::from(first == last) * 30);
        assert!(between(last, last) >= 1);
        assert_eq!(admin.list("since=2100-01-01T00:00:00%2B08:00").0.len(), 0);
        // A voucher's keys, whoever used them.
        let mut found = admin.list("subject=v").0;
        found.reverse();
        assert_eq!(keys(&found).len(), 30);
        assert_eq!(admin.list("subject=w").0.len(), 0);
    });
}

#[test]
fn a_key_that_was_released_and_used_for_another_voucher_is_found_under_both() {
    Place::each(|place| {
        let backend = Backend::start();
        let gateways = place.start(&setup(&backend));
        let (addr, admin) = (gateways[0].addr, AdminClient::of(&gateways[0]));
        backend.always(Act::reset());
        redeem("sale-5", "rsg:D").send(addr).is(502, "unknown", "outcome-unknown");
        admin.settle("sale-5", "not-executed");
        backend.always(answer(200, "{}"));
        redeem("sale-5", "rsg:DD").send(addr).is(200, "executed", "");
        let found = |voucher: &str| admin.list(&format!("subject={voucher}")).0;
        let (first, second) = (found("rsg:D"), found("rsg:DD"));
        assert_eq!((keys(&first), keys(&second)), (vec!["sale-5"], vec!["sale-5"]));
        assert_eq!(
            (&first[0]["state"], &second[0]["state"]),
            (&json!("released"), &json!("final"))
        );
        let shown = admin.get(&format!("/api/records/{}", first[0]["id"].as_str().unwrap())).json();
        assert_eq!(shown["history"][0]["what"], "not-executed");
        // The second record keeps the whole history.
        assert_eq!(second[0]["attempts"], 2);
        // The same voucher again needs no second record.
        backend.always(Act::reset());
        redeem("sale-6", "rsg:E").send(addr).is(502, "unknown", "outcome-unknown");
        admin.settle("sale-6", "not-executed");
        backend.always(answer(200, "{}"));
        redeem("sale-6", "rsg:E").send(addr).is(200, "executed", "");
        assert_eq!(found("rsg:E").len(), 1);
        assert_eq!(backend.calls(), 4);
    });
}

/// The binary with the environment of an operator's shell, and a standard input.
fn shell(gateway: &Gateway, arguments: &[&str], input: &str) -> Output {
    let token = gateway.setup().dir().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let mut child = Command::new(BINARY)
        .args(arguments)
        .env("ONCEGATE_ADMIN", format!("http://{}", gateway.admin))
        .env("ONCEGATE_TOKEN_FILE", token)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn done(gateway: &Gateway, arguments: &[&str], input: &str) -> String {
    let output = shell(gateway, arguments, input);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_shell_settles_what_a_listing_found_with_an_answer_of_its_parts() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    backend.always(Act::reset());
    for key in ["a", "b", "c"] {
        redeem(key, "v").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    }
    let listed = done(&gateway, &["records", "list", "--state", "unknown"], "");
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let body = gateway.setup().dir().join("answer.xml");
    std::fs::write(&body, "<ok amount=\"1.50\"/>\n").unwrap();
    let resolve = [
        "records",
        "resolve",
        "-",
        "--as",
        "executed",
        "--reason",
        "in the books",
        "--status",
        "201",
        "--body",
        body.to_str().unwrap(),
        "--header",
        "content-type: text/xml",
        "--header",
        "x-shop: 7",
    ];
    // The table as it was printed, its heading included.
    let settled = done(&gateway, &resolve, &listed);
    assert_eq!(settled.matches("settled as executed").count(), 3, "{settled}");
    backend.always(answer(500, "{}"));
    for key in ["a", "b", "c"] {
        let reply = redeem(key, "v").send(gateway.addr);
        reply.is(201, "recovered", "");
        assert_eq!(reply.text(), "<ok amount=\"1.50\"/>\n");
        assert_eq!(reply.header("content-type").as_deref(), Some("text/xml"));
        assert_eq!(reply.header("x-shop").as_deref(), Some("7"));
    }
    // One that fails is told and keeps none of the others from being done.
    let ids: Vec<&str> = listed.lines().skip(1).map(|line| &line[..32]).collect();
    let input = format!("{}\n{}\n\n{}\n", ids[0], "0".repeat(32), ids[1]);
    let purged = shell(&gateway, &["records", "purge", "-"], &input);
    assert_eq!(purged.status.code(), Some(1), "{purged:?}");
    let stderr = String::from_utf8(purged.stderr).unwrap();
    assert!(stderr.contains("there is no record with this id"), "{stderr}");
    assert!(stderr.ends_with("1 of 3 records failed\n"), "{stderr}");
    assert_eq!(AdminClient::of(&gateway).list("state=tombstone").0.len(), 2);
    assert_eq!(backend.calls(), 3);
}

#[test]
fn a_response_document_is_replayed_with_its_digits_and_its_order() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    backend.always(Act::reset());
    redeem("a", "v").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let id = AdminClient::of(&gateway).id("a");
    let document = gateway.setup().dir().join("response.json");
    let text = r#"{"status": 200, "body": {"z": 1.50, "a": 12345678901234567890123}}"#;
    std::fs::write(&document, text).unwrap();
    let response = ["--response", document.to_str().unwrap()];
    let resolve = ["records", "resolve", &id, "--as", "executed", "--reason", "r"];
    done(&gateway, &[&resolve[..], &response].concat(), "");
    let reply = redeem("a", "v").send(gateway.addr);
    reply.is(200, "recovered", "");
    assert_eq!(reply.text(), r#"{"z": 1.50, "a": 12345678901234567890123}"#);
    assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
}

#[test]
fn a_uuid_is_found_in_either_case_where_the_route_folds_it() {
    let backend = Backend::start();
    let gateway = setup(&backend).redeem("key.format = \"uuid\"").start();
    let key = "6F9619FF-8B86-D011-B42D-00CF4FC964FF";
    redeem(key, "v").send(gateway.addr).is(200, "executed", "");
    let admin = AdminClient::of(&gateway);
    let tenant = admin.list("").0[0]["tenant"].as_str().unwrap().to_owned();
    for spelled in [key.to_owned(), key.to_lowercase()] {
        assert_eq!(admin.list(&format!("key={spelled}")).0.len(), 1, "{spelled}");
        assert_eq!(admin.list(&format!("key={spelled}&tenant={tenant}")).0.len(), 1, "{spelled}");
        let listed = done(&gateway, &["records", "list", "--key", &spelled], "");
        assert_eq!(listed.lines().count(), 2, "{listed}");
    }
}

#[test]
fn stats_and_the_configuration_are_shown_without_secrets() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    redeem("a", "v").send(gateway.addr).is(200, "executed", "");
    redeem("a", "v").send(gateway.addr).is(200, "replayed", "");
    backend.always(Act::reset());
    redeem("b", "v").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let admin = AdminClient::of(&gateway);
    let stats = admin.get("/api/stats").json();
    assert_eq!(stats["routes"]["redeem"]["requests"]["replayed"], 1, "{stats}");
    assert_eq!(stats["routes"]["redeem"]["prevented"], 1);
    assert_eq!(stats["unknown"]["records"], 1);
    assert!(stats["unknown"]["oldest"].is_string());
    let hour = stats["hour"].as_array().unwrap();
    assert_eq!((hour.len(), stats["day"].as_array().unwrap().len()), (60, 48));
    let sum: u64 = hour.iter().map(|bar| bar["requests"].as_u64().unwrap()).sum();
    assert_eq!(sum, 3);
    let reply = admin.get("/api/config");
    assert!(!reply.text().contains(TOKEN), "{reply:?}");
    let config = reply.json();
    assert!(config["digest"].as_str().unwrap().len() >= 32, "{config}");
    assert_eq!(config["config"]["routes"][0]["name"], "redeem");
    assert_eq!(config["config"]["admin"]["token"], "…");
    for target in ["/api/stats", "/api/config"] {
        assert_eq!(Request::get(target).send(gateway.admin).status, 401);
        let posted = AdminClient::request("POST", target).send(gateway.admin);
        assert_eq!((posted.status, posted.header("allow").as_deref()), (405, Some("GET, HEAD")));
    }
}
