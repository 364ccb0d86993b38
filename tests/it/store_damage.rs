//! A store of which a part was lost while no gateway had it open: no key runs again, and the message
//! says what happened.

use std::fs;
use std::path::Path;

use crate::support::{Backend, Kind, Request, Setup, Shop, answer};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn backend() -> Backend {
    let backend = Backend::start();
    backend.always(answer(200, "{}"));
    backend
}

/// Executes a request and stops the gateway.
fn use_key(setup: &Setup) {
    let mut gateway = setup.start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    gateway.stop();
}

/// A start that fails and says so.
#[track_caller]
fn refused(setup: &Setup, message: &str) {
    let exit = setup.try_start().expect_err("a gateway has started on a damaged store");
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains(message), "{exit:?}");
}

#[test]
fn a_directory_without_its_names_is_refused_in_plain_and_encrypted() {
    for encrypted in [false, true] {
        let backend = backend();
        let mut setup = Setup::before(&backend);
        if encrypted {
            setup = setup.store("encryption = { key_file = \"store.key\" }");
            fs::write(setup.dir().join("store.key"), "a1".repeat(32)).unwrap();
        }
        use_key(&setup);
        let names = setup.store_path().join("data/names");
        let saved = fs::read(&names).unwrap();
        fs::remove_file(&names).unwrap();
        // The second start finds what the first one has left.
        for _ in 0..2 {
            refused(&setup, "keys which were used before could run again; restore the store");
        }
        fs::write(&names, saved).unwrap();
        let gateway = setup.start();
        Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
        assert_eq!(backend.calls(), 1);
    }
}

#[test]
fn a_server_without_its_names_is_refused() {
    Kind::both(|kind| {
        let backend = backend();
        let shop = Shop::own(kind);
        let setup = Setup::before(&backend).on(shop.table(""));
        use_key(&setup);
        if let Some((server, database)) = shop.postgres() {
            server.run_sql_in(database, "DELETE FROM oncegate.names");
        }
        if let Some(server) = shop.redis() {
            let found = server.cli(&["KEYS", "*:names"]);
            assert_eq!(server.cli(&["DEL", found.trim()]).trim(), "1", "{found}");
        }
        refused(&setup, "keys which were used before could run again; restore the store");
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn a_store_without_records_needs_no_names() {
    let backend = backend();
    let setup = Setup::before(&backend);
    setup.start().stop();
    fs::remove_file(setup.store_path().join("data/names")).unwrap();
    use_key(&setup);
    assert_eq!(backend.calls(), 1);
}

#[test]
fn emptied_and_shortened_files_of_a_directory_are_named_as_damage() {
    let backend = backend();
    let setup = Setup::before(&backend);
    use_key(&setup);
    let data = setup.store_path().join("data");
    let mut seen = 0;
    for folder in ["log", "table/tables", "table"] {
        for entry in fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            // Manifests of earlier versions are not read any more.
            if path.is_file() && !is_earlier_version(&path) {
                seen += 1;
                shorten(&setup, &path);
            }
        }
    }
    assert!(seen >= 5, "{seen} files were tried");
    let gateway = setup.start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}

fn is_earlier_version(path: &Path) -> bool {
    let number = |name: &str| name.strip_prefix('v').and_then(|rest| rest.parse::<u64>().ok());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap();
    let Some(version) = number(name) else { return false };
    let siblings = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names = siblings.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.any(|other| number(&other).is_some_and(|other| other > version))
}

fn shorten(setup: &Setup, path: &Path) {
    let sound = fs::read(path).unwrap();
    fs::write(path, b"").unwrap();
    refused(setup, "is damaged: ");
    fs::write(path, sound).unwrap();
}
