//! A store whose directory is moved, removed or replaced while a gateway has it open.

use std::fs;

use crate::support::{Backend, Gateway, Request, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn start() -> (Backend, Gateway) {
    let backend = Backend::start();
    backend.always(answer(200, "{}"));
    let gateway = Setup::before(&backend).start();
    Request::redeem("before", BODY).send(gateway.addr).is(200, "executed", "");
    (backend, gateway)
}

/// New keys are refused, and the probe says why; an earlier answer is still given.
fn refuses(gateway: &Gateway, key: &str) {
    Request::redeem(key, BODY).send(gateway.addr).is(503, "rejected", "store-unavailable");
    let ready = Request::get("/readyz").send(gateway.admin);
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.text().contains("was removed, moved or replaced"), "{ready:?}");
    Request::redeem("before", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(Request::get("/healthz").send(gateway.admin).status, 200);
}

#[test]
fn a_directory_that_was_moved_takes_no_claims_until_it_is_back() {
    let (backend, gateway) = start();
    let path = gateway.setup().store_path();
    let moved = path.with_extension("moved");
    for round in 0..2 {
        fs::rename(&path, &moved).unwrap();
        refuses(&gateway, "during");
        // Another, empty directory in its place does not help.
        fs::create_dir_all(path.join("data/log")).unwrap();
        refuses(&gateway, "during");
        fs::remove_dir_all(&path).unwrap();
        fs::rename(&moved, &path).unwrap();
        let key = format!("after-{round}");
        Request::redeem(&key, BODY).send(gateway.addr).is(200, "executed", "");
        assert_eq!(Request::get("/readyz").send(gateway.admin).status, 200);
    }
    Request::redeem("during", BODY).send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.calls(), 4);
}

#[test]
fn a_directory_that_was_removed_takes_no_claims() {
    for what in ["", "data", "data/log", "data/log/1"] {
        let (backend, gateway) = start();
        let path = gateway.setup().store_path().join(what);
        match path.is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        refuses(&gateway, "during");
        assert_eq!(backend.calls(), 1, "{what}");
    }
}

#[test]
fn without_its_lock_file_a_directory_is_still_locked() {
    let (backend, gateway) = start();
    let setup = gateway.setup();
    fs::remove_file(setup.store_path().join("lock")).unwrap();
    let refused = setup.try_start().expect_err("a second gateway has started");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("is in use by another process"), "{refused:?}");
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.calls(), 2);
    let setup = setup.clone();
    drop(gateway);
    let again = eventually("the directory is free", || setup.try_start().ok());
    Request::redeem("k", BODY).send(again.addr).is(200, "replayed", "");
}
