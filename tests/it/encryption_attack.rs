//! Encrypted stores that somebody changes, and rotations that end in the middle: nothing runs
//! again, and nothing is answered with another record's content.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::gateway::{BINARY, run};
use super::support::{Backend, Gateway, Kind, Request, Response, Setup, Shop, answer};

const KEYS: usize = 60;
const OLD: &str = "encryption = { key_file = \"a.key\" }";
const BOTH: &str = "encryption = { key_file = \"b.key\", previous_key_files = [\"a.key\"] }";
const NEW: &str = "encryption = { key_file = \"b.key\" }";

/// A backend whose answers name the request's key.
fn backend() -> Backend {
    Backend::scripted(|seen| answer(200, &seen.header("idempotency-key").unwrap_or_default()))
}

/// A setup without encryption beside two keys; the backend sees each key.
fn before(backend: &Backend) -> Setup {
    let setup = Setup::before(backend).redeem("key.forward = true");
    for (name, byte) in [("a.key", "a1"), ("b.key", "b2")] {
        std::fs::write(setup.dir().join(name), format!("{}\n", byte.repeat(32))).unwrap();
    }
    setup
}

fn redeem(gateway: &Gateway, number: usize) -> Response {
    Request::redeem(&format!("key-{number}"), "{}").send(gateway.addr)
}

/// Asserts that every key has its own answer.
fn all_replayed(gateway: &Gateway) {
    for number in 0..KEYS {
        let reply = redeem(gateway, number);
        reply.is(200, "replayed", "");
        assert_eq!(reply.text(), format!("key-{number}"));
    }
}

/// Rotates, and kills the rotation after each of some times; then ends it.
fn rotation_is_killed(plain: &Setup, backend: &Backend, online: bool) {
    let keys = |line: &str| plain.clone().store(line);
    let mut gateway = keys(OLD).start();
    for number in 0..KEYS {
        redeem(&gateway, number).is(200, "executed", "");
    }
    gateway.stop();
    let both = keys(BOTH);
    for milliseconds in [1, 5, 10, 20, 30, 45, 60, 90, 150] {
        let config = both.write_config();
        let mut rotation = Command::new(BINARY)
            .args(["store", "rotate", "--config", &config])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        rotation.kill().unwrap();
        rotation.wait().unwrap();
        if [30, 60, 150].contains(&milliseconds) {
            let mut gateway = both.start();
            all_replayed(&gateway);
            gateway.stop();
        }
    }
    // On a server, gateways work meanwhile.
    let mut gateway = online.then(|| both.start());
    let rotated = run(&["store", "rotate", "--config", &both.write_config()]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    if let Some(gateway) = &mut gateway {
        all_replayed(gateway);
        gateway.stop();
    }
    let only_new = keys(NEW);
    let verified = run(&["store", "verify", "--config", &only_new.write_config()]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    all_replayed(&only_new.start());
    assert_eq!(backend.calls(), KEYS);
    let refused = keys(OLD).try_start().unwrap_err();
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn a_rotation_that_is_killed_loses_nothing_in_a_directory() {
    let backend = backend();
    rotation_is_killed(&before(&backend), &backend, false);
}

#[test]
fn a_rotation_that_is_killed_loses_nothing_on_servers() {
    Kind::both(|kind| {
        let (backend, shop) = (backend(), Shop::borrow(kind));
        rotation_is_killed(&before(&backend).on(shop.table("")), &backend, true);
    });
}

/// Asserts that keys whose records were changed are refused, and run nothing.
fn changed_records_are_refused(setup: &Setup, backend: &Backend, what: &str) {
    let calls = backend.calls();
    let gateway = setup.start();
    for number in [1, 2, 1] {
        let reply = redeem(&gateway, number).summary();
        let expected = (503, "rejected".to_owned(), "store-unavailable".to_owned());
        assert_eq!(reply, expected, "{what}");
    }
    assert_eq!(backend.calls(), calls, "{what}");
}

/// Changes every record of a Redis: `c` is a script that returns the new value of a record, given
/// its own and the other's.
fn change_redis(shop: &Shop, change: &str) {
    let script = format!(
        "local found = {{}}
         for _, key in ipairs(redis.call('KEYS', '*:r:*')) do
           table.insert(found, {{ key, redis.call('GET', key) }})
         end
         assert(#found == 2, 'records: ' .. #found)
         for at, record in ipairs(found) do
           local own, other = record[2], found[3 - at][2]
           redis.call('SET', record[1], {change})
         end"
    );
    shop.redis().unwrap().cli(&["EVAL", &script, "0"]);
}

#[test]
fn sealed_records_that_were_changed_in_redis_are_refused_and_never_run_again() {
    let flip = |at: &str| {
        format!(
            "own:sub(1, {at}) .. string.char(bit.bxor(own:byte({at} + 1), 1)) .. own:sub({at} + 2)"
        )
    };
    for change in ["other".to_owned(), flip("1"), flip("(#own - 1)"), flip("(#own - 40)")] {
        let (backend, shop) = (backend(), Shop::own(Kind::Redis));
        let setup = before(&backend).store(OLD).on(shop.table(""));
        let mut gateway = setup.start();
        for number in [1, 2] {
            redeem(&gateway, number).is(200, "executed", "");
        }
        gateway.stop();
        change_redis(&shop, &change);
        changed_records_are_refused(&setup, &backend, &change);
    }
}

fn files(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
}

/// A changed byte of any file stops the start, or the key, or changes nothing.
#[test]
fn a_changed_byte_of_a_sealed_directory_never_runs_a_request_again() {
    let backend = backend();
    let setup = before(&backend).store(OLD);
    let mut gateway = setup.start();
    for number in 0..4 {
        redeem(&gateway, number).is(200, "executed", "");
    }
    gateway.stop();
    let mut whole = BTreeMap::new();
    files(&setup.store_path(), &mut whole);
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for (path, bytes) in &whole {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        for at in (0..used).step_by((used / 7).max(1)) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(path, &changed).unwrap();
            let name = format!("{} at {at} of {used}", path.display());
            match setup.try_start() {
                Err(exit) => {
                    assert!(exit.code.is_some(), "{name}: {exit:?}");
                    *outcomes.entry("refused".to_owned()).or_default() += 1;
                }
                Ok(mut gateway) => {
                    for number in 0..4 {
                        let reply = redeem(&gateway, number);
                        let is_own = reply.text() == format!("key-{number}");
                        let fine = reply.status == 503 || (reply.status == 200 && is_own);
                        assert!(fine, "{name}: {reply:?}");
                        *outcomes.entry(reply.disposition()).or_default() += 1;
                    }
                    assert_eq!(backend.calls(), 4, "{name}");
                    gateway.stop();
                }
            }
            std::fs::remove_dir_all(setup.store_path()).unwrap();
            for (path, bytes) in &whole {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
    println!("{outcomes:?}");
}
