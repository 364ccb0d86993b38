//! Encryption of the store: nothing readable on disk or on a server, no id that changes, and
//! nothing that runs again for lack of a key.

use std::path::Path;

use super::support::gateway::{Exit, run};
use super::support::{Act, AdminClient, Backend, Gateway, Kind, Request, Response, Setup, Shop};

/// Texts that no copy of a store may show.
const SECRETS: [&str; 5] = [
    "key-0815-of-the-till",
    "body-of-the-request",
    "answer-of-the-backend",
    "VOUCHER-4711",
    "x-tracing-header",
];

fn write_key(folder: &Path, name: &str, byte: u8) {
    std::fs::write(folder.join(name), format!("{}\n", format!("{byte:02x}").repeat(32))).unwrap();
}

/// A setup whose store is sealed under the key `a`.
fn sealed(backend: &Backend) -> Setup {
    let setup = Setup::before(backend)
        .store("encryption = { key_file = \"a.key\" }")
        .redeem("record.subject = \"/qr\"");
    write_key(setup.dir(), "a.key", 0xa1);
    write_key(setup.dir(), "b.key", 0xb2);
    setup
}

fn backend() -> Backend {
    Backend::scripted(|seen| match seen.text().contains("lose") {
        true => Act::close(),
        false => Act::whole(
            200,
            &[("x-tracing-header", "x-tracing-header")],
            b"{\"said\":\"answer-of-the-backend\"}",
        ),
    })
}

fn body(more: &str) -> String {
    format!("{{\"qr\":\"VOUCHER-4711\",\"text\":\"body-of-the-request\",\"more\":\"{more}\"}}")
}

fn redeem(gateway: &Gateway, number: usize, more: &str) -> Response {
    Request::redeem(&format!("key-0815-of-the-till-{number}"), &body(more)).send(gateway.addr)
}

/// Executes, loses and replays some requests.
fn work(gateway: &Gateway) {
    for number in 0..5 {
        redeem(gateway, number, "").is(200, "executed", "");
        redeem(gateway, number, "").is(200, "replayed", "");
    }
    redeem(gateway, 90, "lose").is(502, "unknown", "outcome-unknown");
}

/// The secrets that stand readable in the files below `folder`.
fn readable(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(readable(&path));
            continue;
        }
        if !path.is_file() {
            continue;
        }
        // A server removes files while they are looked at.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let bytes = String::from_utf8_lossy(&bytes);
        let shows = |text: &&str| bytes.contains(*text);
        found.extend(
            SECRETS
                .iter()
                .filter(|text| shows(text))
                .map(|text| format!("{text} in {}", path.display())),
        );
    }
    found
}

/// The text as a dump writes bytes.
fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Reports whether a file in `folder` holds this text.
fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap()).contains(text)
    })
}

fn with_keys(setup: &Setup, keys: &str) -> Setup {
    setup.clone().replacing("encryption = { key_file = \"a.key\" }", keys)
}

/// Runs a command on the store of this setup.
fn command(setup: &Setup, command: &str) -> Exit {
    run(&["store", command, "--config", &setup.write_config(), "--json"])
}

#[test]
fn nothing_of_a_record_is_readable_in_the_directory() {
    let backend = backend();
    let setup = sealed(&backend);
    let mut gateway = setup.start();
    work(&gateway);
    assert_eq!(readable(&setup.store_path()), Vec::<String>::new(), "while it runs");
    gateway.kill9();
    assert_eq!(readable(&setup.store_path()), Vec::<String>::new(), "after a crash");
    let mut gateway = setup.start();
    for number in 0..5 {
        redeem(&gateway, number, "").is(200, "replayed", "");
    }
    redeem(&gateway, 90, "lose").is(409, "unknown", "outcome-unknown");
    gateway.stop();
    assert_eq!(readable(&setup.store_path()), Vec::<String>::new(), "after an end in order");
    assert_eq!(backend.calls(), 6);
    let verified = command(&setup, "verify");
    assert_eq!(verified.code, Some(0), "{verified:?}");
    // The check finds something where there is something.
    let plain = Setup::before(&backend).redeem("record.subject = \"/qr\"");
    let gateway = plain.start();
    redeem(&gateway, 1, "").is(200, "executed", "");
    assert!(!readable(&plain.store_path()).is_empty());
}

#[test]
fn a_missing_or_wrong_key_stops_the_start_and_runs_nothing_again() {
    let backend = backend();
    let setup = sealed(&backend);
    let mut gateway = setup.start();
    redeem(&gateway, 1, "").is(200, "executed", "");
    gateway.stop();
    for (keys, reason) in [
        ("", "encrypted"),
        ("encryption = { key_file = \"b.key\" }", "previous_key_files"),
        ("encryption = { key_file = \"none.key\" }", "none.key"),
    ] {
        let exit = with_keys(&setup, keys).try_start().unwrap_err();
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.contains(reason), "{exit:?}");
    }
    std::fs::write(setup.dir().join("short.key"), "abcd").unwrap();
    let exit = with_keys(&setup, "encryption = { key_file = \"short.key\" }").try_start();
    assert!(exit.unwrap_err().stderr.contains("holds no key"));
    let by_path = run(&["store", "verify", "--path", setup.store_path().to_str().unwrap()]);
    assert_eq!(by_path.code, Some(2), "{by_path:?}");
    let gateway = setup.start();
    redeem(&gateway, 1, "").is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_rotation_changes_the_key_and_no_id() {
    let backend = backend();
    let setup = sealed(&backend);
    let mut gateway = setup.start();
    work(&gateway);
    gateway.stop();
    let both = with_keys(
        &setup,
        "encryption = { key_file = \"b.key\", previous_key_files = [\"a.key\"] }",
    );
    // Both keys open, new records are sealed under the new one.
    let mut gateway = both.start();
    redeem(&gateway, 1, "").is(200, "replayed", "");
    redeem(&gateway, 6, "").is(200, "executed", "");
    gateway.stop();
    let rotated = command(&both, "rotate");
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    let counts: serde_json::Value = serde_json::from_str(&rotated.stdout).unwrap();
    let counts = counts["records_by_key"].as_object().unwrap();
    assert_eq!(counts.values().map(|count| count.as_u64().unwrap()).collect::<Vec<_>>(), [7]);
    let only_new = with_keys(&setup, "encryption = { key_file = \"b.key\" }");
    let verified = command(&only_new, "verify");
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let gateway = only_new.start();
    for number in [0, 1, 2, 3, 4, 6] {
        redeem(&gateway, number, "").is(200, "replayed", "");
    }
    redeem(&gateway, 90, "lose").is(409, "unknown", "outcome-unknown");
    assert_eq!(backend.calls(), 7);
    assert_eq!(readable(&setup.store_path()), Vec::<String>::new());
    drop(gateway);
    let exit = setup.try_start().unwrap_err();
    assert_eq!(exit.code, Some(2), "the old key opens nothing: {exit:?}");
}

#[test]
fn a_store_in_plain_is_taken_and_a_rotation_leaves_nothing_readable() {
    let backend = backend();
    let setup = sealed(&backend);
    let plain = with_keys(&setup, "");
    let mut gateway = plain.start();
    work(&gateway);
    gateway.stop();
    assert!(!readable(&setup.store_path()).is_empty());
    let mut gateway = setup.start();
    assert!(gateway.stderr().contains("was in plain"), "{}", gateway.stderr());
    redeem(&gateway, 1, "").is(200, "replayed", "");
    redeem(&gateway, 7, "").is(200, "executed", "");
    gateway.stop();
    let rotated = command(&setup, "rotate");
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    assert_eq!(readable(&setup.store_path()), Vec::<String>::new());
    let gateway = setup.start();
    for number in [0, 1, 2, 3, 4, 7] {
        redeem(&gateway, number, "").is(200, "replayed", "");
    }
    assert_eq!(backend.calls(), 7);
    drop(gateway);
    let exit = plain.try_start().unwrap_err();
    assert_eq!(exit.code, Some(2), "there is no way back to plain: {exit:?}");
}

#[test]
fn records_are_found_by_key_and_voucher_under_keyed_ids() {
    let backend = backend();
    let gateway = AdminClient::guard(sealed(&backend)).start();
    redeem(&gateway, 1, "").is(200, "executed", "");
    let admin = AdminClient::of(&gateway);
    let (all, _) = admin.list("");
    let tenant = all[0]["tenant"].as_str().unwrap();
    let (by_key, _) = admin.list(&format!("tenant={tenant}&key=key-0815-of-the-till-1"));
    assert_eq!(by_key.len(), 1);
    let (by_voucher, _) = admin.list(&format!("tenant={tenant}&subject=VOUCHER-4711"));
    assert_eq!(by_voucher, by_key);
    let status = Request::get("/.well-known/idempotency/status").key("key-0815-of-the-till-1");
    assert_eq!(status.send(gateway.addr).json()["state"], "final");
}

/// Records that somebody changed in the store are refused, and their keys never run again: two
/// sealed values in each other's place, another state, another part of the seal.
#[test]
fn sealed_records_that_were_changed_are_refused_and_never_run_again() {
    for (what, sql) in [
        ("swapped", SWAP_SQL),
        ("state", "UPDATE oncegate.record SET data = set_byte(data, 1, 2)"),
        ("seal", "UPDATE oncegate.record SET data = set_byte(data, 90, get_byte(data, 90) # 1)"),
    ] {
        let (backend, shop) = (backend(), Shop::borrow(Kind::Postgres));
        let setup = sealed(&backend).on(shop.table(""));
        let mut gateway = setup.start();
        redeem(&gateway, 1, "").is(200, "executed", "");
        redeem(&gateway, 2, "").is(200, "executed", "");
        gateway.stop();
        let (server, database) = shop.postgres().unwrap();
        server.run_sql_in(database, sql);
        let gateway = setup.start();
        for number in [1, 2, 1] {
            let reply = redeem(&gateway, number, "");
            let expected = (503, "rejected".to_owned(), "store-unavailable".to_owned());
            assert_eq!(reply.summary(), expected, "{what}");
        }
        assert_eq!(backend.calls(), 2, "{what}");
    }
}

/// Gives each of two records the other's version and data.
const SWAP_SQL: &str = "UPDATE oncegate.record AS r SET data = o.data, version = o.version \
                        FROM oncegate.record AS o WHERE r.id <> o.id";

/// Everything that the server keeps, as bytes in a text.
fn dump(shop: &Shop) -> String {
    match (shop.postgres(), shop.redis()) {
        (Some((server, database)), _) => server.run_sql_in(
            database,
            "SELECT string_agg(encode(data, 'escape'), ' ') FROM oncegate.record",
        ),
        (_, Some(server)) => server.cli(&["EVAL", DUMP_LUA, "0"]),
        _ => panic!("neither PostgreSQL nor Redis"),
    }
}

/// All values of all keys.
const DUMP_LUA: &str = "local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' then table.insert(found, redis.call('GET', key)) end
  if kind == 'hash' then
    for _, value in ipairs(redis.call('HGETALL', key)) do table.insert(found, value) end
  end
  if kind == 'zset' then
    for _, value in ipairs(redis.call('ZRANGE', key, 0, -1)) do table.insert(found, value) end
  end
end
return table.concat(found, ' ')";

#[test]
fn servers_keep_nothing_readable_and_their_keys_rotate_while_gateways_run() {
    Kind::both(|kind| {
        let backend = backend();
        let shop = Shop::own(kind);
        let plain = Setup::before(&backend).redeem("record.subject = \"/qr\"").on(shop.table(""));
        let keys = |keys: &str| {
            let setup = plain.clone().store(keys);
            write_key(setup.dir(), "a.key", 0xa1);
            write_key(setup.dir(), "b.key", 0xb2);
            setup
        };
        let old = keys("encryption = { key_file = \"a.key\" }");
        let mut gateway = old.start();
        work(&gateway);
        let kept = dump(&shop);
        assert!(kept.len() > 500, "{kept}");
        if let Some(server) = shop.redis() {
            // The log of commands has what no key holds any more.
            let log = server.dir().join("appendonlydir");
            assert!(holds(&log, "oncegate:"), "{}: no log is read", log.display());
            assert_eq!(readable(server.dir()), Vec::<String>::new(), "files of {kind:?}");
        }
        if let Some((server, database)) = shop.postgres() {
            let dumped = server.dump(database);
            assert!(dumped.contains("oncegate.record"), "{dumped}");
            for text in SECRETS {
                assert!(!dumped.contains(text) && !dumped.contains(&hex(text)), "{text}");
            }
            // All files, the log of changes included: pages of it have rows that are gone.
            server.run_sql_in(database, "CHECKPOINT");
            assert_eq!(readable(server.dir()), Vec::<String>::new(), "files of {kind:?}");
        }
        for text in SECRETS {
            assert!(!kept.contains(text), "{text} on {kind:?}");
        }
        gateway.stop();
        let both = keys("encryption = { key_file = \"b.key\", previous_key_files = [\"a.key\"] }");
        let mut gateway = both.start();
        let rotated = command(&both, "rotate");
        assert_eq!(rotated.code, Some(0), "{rotated:?}");
        let counts: serde_json::Value = serde_json::from_str(&rotated.stdout).unwrap();
        let counts = counts["records_by_key"].as_object().unwrap().clone();
        let numbers: Vec<u64> = counts.values().map(|count| count.as_u64().unwrap()).collect();
        assert_eq!(numbers, [6], "{counts:?}");
        for number in 0..5 {
            redeem(&gateway, number, "").is(200, "replayed", "");
        }
        gateway.stop();
        let new = keys("encryption = { key_file = \"b.key\" }");
        let verified = command(&new, "verify");
        assert_eq!(verified.code, Some(0), "{verified:?}");
        let gateway = new.start();
        for number in 0..5 {
            redeem(&gateway, number, "").is(200, "replayed", "");
        }
        redeem(&gateway, 90, "lose").is(409, "unknown", "outcome-unknown");
        for refused in [&old, &plain] {
            let exit = refused.try_start().err();
            let exit = exit.unwrap_or_else(|| panic!("{kind:?}: starts without the key"));
            assert_eq!(exit.code, Some(2), "{exit:?}");
        }
        assert_eq!(backend.calls(), 6);
    });
}
