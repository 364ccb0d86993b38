//! Names of keys: no change of a configuration makes a key run twice unless an operator accepts it.

use crate::support::gateway::Exit;
use crate::support::rewards::{batch, issue};
use crate::support::{Backend, Gateway, Kind, Request, Rewards, Setup, Shop};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const ITEMS: [(&str, &str, u64); 2] = [("a", "R1", 2), ("b", "R2", 2)];

/// The configuration was refused with these words; gives the line that accepts the change.
#[track_caller]
fn refused(setup: &Setup, words: &[&str]) -> String {
    let Exit { code, stdout, stderr } = setup.try_start().expect_err("it started");
    assert_eq!(code, Some(2), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is missing: {stderr}");
    }
    assert!(!stdout.contains("ready") && !stderr.contains("panicked"), "{stdout}{stderr}");
    let line = stderr.lines().map(str::trim).find(|line| line.starts_with("accept_names = "));
    let line = line.unwrap_or_default().to_owned();
    assert!(line.len() >= "accept_names = ''".len() + 16, "{stderr}");
    line
}

/// Starts, redeems once, and ends.
fn redeem_once(setup: &Setup, disposition: &str) {
    let mut gateway = setup.start();
    redeem(&gateway, disposition);
    gateway.stop();
}

fn redeem(gateway: &Gateway, disposition: &str) {
    Request::redeem("k", BODY).tenant("t").send(gateway.addr).is(200, disposition, "");
}

#[test]
fn a_renamed_items_route_issues_nothing_again() {
    let rewards = Rewards::start();
    let setup = rewards.setup("");
    let mut gateway = setup.start();
    issue(&batch("+65", &ITEMS)).send(gateway.addr).is(200, "executed", "");
    gateway.stop();
    let renamed = setup.clone().replacing("name = \"issue\"", "name = \"bulk\"");
    let accept = refused(
        &renamed,
        &[
            "POST /issue (route `bulk`)",
            "ledger = \"bulk\"",
            "to keep them write [route.items] ledger = \"issue\"",
        ],
    );
    // What the message says keeps the keys.
    let kept = renamed
        .clone()
        .replacing("profile = \"capillary\"", "profile = \"capillary\"\nitems.ledger = \"issue\"");
    let mut gateway = kept.start();
    issue(&batch("+65", &ITEMS)).send(gateway.addr).is(200, "replayed", "");
    gateway.stop();
    assert_eq!((rewards.issued("a"), rewards.issued("b")), (2, 2));
    // Or the change is accepted, for this once and for every later start.
    let mut gateway = renamed.clone().store(&accept).start().restarted();
    issue(&batch("+65", &ITEMS)).send(gateway.addr).is(200, "executed", "");
    gateway.stop();
    renamed.start().stop();
    assert_eq!((rewards.issued("a"), rewards.issued("b")), (4, 4));
    // The way back is a change of its own.
    let back = refused(&setup.clone().store(&accept), &["is for another change", "\"bulk\""]);
    assert_ne!(back, accept);
    setup.store(&back).start().stop();
}

#[test]
fn a_ledger_that_is_named_later_is_a_change() {
    let rewards = Rewards::start();
    rewards.gateway("").stop();
    let setup = rewards.setup("");
    setup.start().stop();
    let named = |ledger: &str| {
        setup.clone().replacing(
            "profile = \"capillary\"",
            format!("profile = \"capillary\"\nitems.ledger = \"{ledger}\""),
        )
    };
    refused(&named("rewards"), &["ledger = \"rewards\"", "ledger = \"issue\""]);
    named("issue").start().stop();
}

#[test]
fn every_way_to_look_for_a_key_elsewhere_is_refused() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).redeem("key.max_length = 255");
    redeem_once(&setup, "executed");
    let edit = |that: &str| setup.clone().replacing("key.max_length = 255", that);
    let scope = "scope = \"tenant\"";
    let header = "header = \"idempotency-key\"";
    let tenant = "headers = [\"authorization\", \"x-api-key\"]";
    let mut accepts = Vec::new();
    for (changed, keep) in [
        (edit("key.scope = \"route\""), scope),
        (edit("key.header = \"X-Request-Key\""), header),
        (edit("key.pointer = \"/qr\""), header),
        (edit("key.from = \"form:qr\""), header),
        (edit("key.from = [\"/qr\", \"query:t\"]"), header),
        (edit("key.from = [\"query:t\", \"/qr\"]"), header),
        (edit("mode = \"items\"\nprofile = \"capillary\""), "mode = \"request\""),
        (setup.clone().tenant("headers = [\"x-api-key\"]"), tenant),
        (setup.clone().tenant("headers = [\"authorization\", \"x-api-key\", \"x-shop\"]"), tenant),
        (setup.clone().tenant("headers = []"), tenant),
        (
            setup.clone().route(
                "name = \"all\"\nmethods = [\"POST\"]\npath = \"/{*rest}\"\nkey.scope = \"route\"",
            ).replacing("/v1/vouchers/redeem", "/v2/vouchers/redeem"),
            "POST /v1/vouchers/redeem (route `all`)",
        ),
    ] {
        accepts.push(refused(&changed, &["keys", keep, "accept_names"]));
        assert_eq!(backend.calls(), 1);
    }
    let every = accepts.len();
    accepts.sort();
    accepts.dedup();
    assert_eq!(accepts.len(), every, "a line accepts one change only");
    // A line for one change accepts no other.
    let two = edit("key.scope = \"route\"").store(&refused(&edit("key.pointer = \"/qr\""), &[]));
    refused(&two, &["is for another change"]);
    redeem_once(&setup, "replayed");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_path_beside_a_wider_one_with_a_condition_is_compared_with_it() {
    let backend = Backend::start();
    let condition = "when = { header = \"x-api-key\", present = true }";
    let wide = |scope: &str| {
        format!("name = \"all\"\nmethods = [\"POST\"]\npath = \"/{{*rest}}\"\n{condition}\n{scope}")
    };
    let own = "key.scope = \"route\"";
    // The scopes of the wide and of the narrow path differ, and the narrow one comes, or goes.
    for (wide_scope, narrow_scope) in [(own, "key.scope = \"tenant\""), ("", own)] {
        for comes in [true, false] {
            let calls = backend.calls();
            let with = Setup::before(&backend).redeem(narrow_scope).route(&wide(wide_scope));
            let without = with.clone().replacing("/v1/vouchers/redeem", "/v2/vouchers/redeem");
            let (before, after) = if comes { (without, with) } else { (with, without) };
            redeem_once(&before, "executed");
            refused(&after, &["POST /v1/vouchers/redeem", "keys are kept under"]);
            redeem_once(&before, "replayed");
            assert_eq!(backend.calls(), calls + 1);
        }
    }
}

#[test]
fn what_changes_no_name_is_no_change() {
    let backend = Backend::start();
    let setup = Setup::before(&backend)
        .redeem("key.max_length = 255")
        .route("name = \"one\"\nmethods = [\"PUT\"]\npath = \"/v1/{id}/x\"");
    redeem_once(&setup, "executed");
    for same in [
        setup.clone().tenant("headers = [\"X-API-Key\", \"Authorization\"]"),
        setup.clone().replacing("{id}", "{voucher}"),
        setup.clone().replacing("name = \"redeem\"", "name = \"redemptions\""),
        setup.clone().replacing(
            "key.max_length = 255",
            "key.scope = \"tenant\"\nfingerprint.exclude = [\"/t\"]",
        ),
        setup
            .clone()
            .route("name = \"new\"\nmethods = [\"POST\"]\npath = \"/v9\"\nkey.scope = \"route\""),
        setup.clone().store("accept_names = \"0123456789abcdef0123456789abcdef\""),
    ] {
        same.start().stop();
    }
    redeem_once(&setup, "replayed");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_pattern_that_is_off_keeps_its_names_for_when_it_returns() {
    let backend = Backend::start();
    let keyed = "mode = \"request\"\nkey.scope = \"route\"";
    let setup = Setup::before(&backend).redeem(keyed);
    redeem_once(&setup, "executed");
    let off = setup.clone().replacing(keyed, "mode = \"off\"");
    let gone = setup.clone().replacing("/v1/vouchers/redeem", "/v2/vouchers/redeem");
    for (absent, words) in [(off, "passes without keys"), (gone, "is served no more")] {
        let mut gateway = absent.start();
        gateway.stop();
        let log = gateway.stderr();
        let line = log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("WARN") && line.contains("POST /v1/vouchers/redeem"), "{line}");
        refused(&setup.clone().replacing("key.scope = \"route\"", "key.scope = \"tenant\""), &[]);
        redeem_once(&setup, "replayed");
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn replicas_that_disagree_are_refused() {
    Kind::all(|kind| {
        let backend = Backend::start();
        let shop = Shop::borrow(kind);
        let setup = Setup::before(&backend)
            .redeem("key.scope = \"tenant\"")
            .on(shop.table("lease = \"2s\""));
        let other = setup.elsewhere().replacing("key.scope = \"tenant\"", "key.scope = \"route\"");
        let mut first = setup.start();
        redeem(&first, "executed");
        let accept = refused(&other, &["scope = \"tenant\"", "alive (1)"]);
        let accepting = other.store(&accept);
        // Accepted, but another replica would go on with the old names.
        let exit = accepting.try_start().unwrap_err();
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.contains("alive (1)"), "{exit:?}");
        assert!(!exit.stderr.contains("accept_names ="), "{exit:?}");
        // Replicas that agree start, and take no offence at the ones that were refused.
        let mut second = setup.elsewhere().start();
        redeem(&second, "replayed");
        first.stop();
        refused(&accepting.clone().replacing(accept.as_str(), ""), &["alive (1)"]);
        second.stop();
        let mut changed = accepting.start();
        redeem(&changed, "executed");
        refused(&setup, &["scope = \"route\"", "alive (1)"]);
        changed.stop();
        assert_eq!(backend.calls(), 2);
    });
}

#[test]
fn of_two_replicas_that_disagree_from_the_start_one_is_refused() {
    Kind::both(|kind| {
        let backend = Backend::start();
        let shop = Shop::borrow(kind);
        let setup = Setup::before(&backend).redeem("key.scope = \"tenant\"").on(shop.table(""));
        // The tables are made once.
        shop.replica(
            &Setup::before(&backend).replacing(
                "name = \"redeem\"\nmethods = [\"POST\"]\npath = \"/v1/vouchers/redeem\"\n",
                "name = \"x\"\nmethods = [\"POST\"]\npath = \"/x\"\nmode = \"off\"\n",
            ),
            "",
        )
        .stop();
        let setups = [
            setup.elsewhere(),
            setup.elsewhere().replacing("key.scope = \"tenant\"", "key.scope = \"route\""),
        ];
        let started = crate::support::at_once(2, |at| setups[at].try_start());
        let codes: Vec<_> = started
            .iter()
            .map(|it| it.as_ref().err().map_or(0, |exit| exit.code.unwrap()))
            .collect();
        assert!(codes == [0, 2] || codes == [2, 0], "{started:?}");
    });
}

#[test]
fn a_short_acceptance_is_a_mistake_of_the_configuration() {
    let setup = Setup::before(&Backend::start()).store("accept_names = \"0123456789abcde\"");
    let exit = setup.try_start().unwrap_err();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("`accept_names` is too short"), "{exit:?}");
}

#[test]
fn the_shipped_batch_example_keeps_its_ledger_when_its_route_is_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let shipped = include_str!("../../config/capillary.toml");
    let config = dir.path().join("oncegate.toml");
    let write = |name: &str| {
        let text = shipped.replacen("name = \"issue-rewards\"", &format!("name = {name:?}"), 1);
        let free = "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        let text = format!("{text}\n{free}");
        std::fs::write(&config, text).unwrap();
    };
    let store = dir.path().join("store");
    let setup = Setup::before(&Backend::start()).env("ONCEGATE_STORE", store.to_str().unwrap());
    let start = || setup.launch(&["run", "--config", config.to_str().unwrap()]);
    write("issue-rewards");
    start().unwrap().stop();
    write("bulk");
    let exit = start().unwrap_err();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("ledger = \"issue-rewards\""), "{exit:?}");
}
