//! A store that is new knows no key that was used before: it is told, and made on purpose. What is
//! made is for its owner alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::gateway::{BINARY, Exit, run};
use crate::support::{Backend, Gateway, Kind, Request, Setup, Shop};

const NEW: &str = "is new and empty: no key used before is known here";

/// Ends the gateway; gives the line on stdout and the warning about a new store.
fn reports(mut gateway: Gateway) -> (Option<String>, Option<String>) {
    gateway.stop();
    let find = |text: &str| text.lines().find(|line| line.contains(NEW)).map(str::to_owned);
    (find(gateway.stdout()), find(&gateway.stderr()))
}

#[test]
fn a_new_store_is_told_on_the_log_and_on_standard_output_once() {
    let check = |setup: &Setup| {
        let (line, warning) = reports(setup.start());
        let (line, warning) = (line.expect("a line on stdout"), warning.expect("a warning"));
        assert!(line.starts_with("oncegate: the store "), "{line}");
        assert!(warning.contains("WARN") && warning.contains("expect_id"), "{warning}");
        assert_eq!(reports(setup.start()), (None, None), "it is not new any more");
    };
    let setup = Setup::before(&Backend::start());
    check(&setup);
    // The same in a container that was created anew, with an empty volume.
    fs::remove_dir_all(setup.store_path()).unwrap();
    check(&setup);
    Kind::all(|kind| {
        let shop = Shop::borrow(kind);
        check(&Setup::before(&Backend::start()).on(shop.table("")));
    });
}

#[test]
fn a_store_made_on_purpose_is_told_by_who_made_it() {
    let setup = Setup::before(&Backend::start()).store("create = false");
    let path = setup.store_path();
    assert_eq!(run(&["store", "init", "--path", path.to_str().unwrap()]).code, Some(0));
    assert_eq!(reports(setup.start()), (None, None));
}

/// `store init --if-absent` with this configuration: the id it prints.
fn init_if_absent(config: &str) -> String {
    let exit = run(&["store", "init", "--if-absent", "--json", "--config", config]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let document: serde_json::Value = serde_json::from_str(&exit.stdout).expect("JSON");
    document["store_id"].as_str().expect("an id").to_owned()
}

#[test]
fn init_if_absent_makes_a_store_once_and_then_leaves_it() {
    let check = |setup: Setup| {
        let config = setup.write_config();
        let id = init_if_absent(&config);
        let pinned = setup.store(&format!("expect_id = \"{id}\"")).store("create = false");
        let mut gateway = pinned.start();
        Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
        gateway.stop();
        assert_eq!(init_if_absent(&config), id);
        let Exit { code, stdout, stderr } = run(&["store", "init", "--config", &config]);
        assert_eq!(code, Some(1), "{stdout}{stderr}");
        let plain = run(&["store", "init", "--if-absent", "--config", &config]);
        assert_eq!(plain.code, Some(0), "{plain:?}");
        assert!(plain.stdout.contains(&id) && plain.stdout.contains("already"), "{plain:?}");
        let gateway = pinned.start();
        Request::redeem("k", "{}").send(gateway.addr).is(200, "replayed", "");
        let while_open = run(&["store", "init", "--if-absent", "--config", &config]);
        assert_eq!(while_open.code, Some(0), "{while_open:?}");
    };
    check(Setup::before(&Backend::start()));
    Kind::all(|kind| {
        let shop = Shop::borrow(kind);
        check(Setup::before(&Backend::start()).on(shop.table("")));
    });
}

#[test]
fn init_if_absent_fails_where_no_store_can_be() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("photo"), "x").unwrap();
    let exit = run(&["store", "init", "--if-absent", "--path", dir.path().to_str().unwrap()]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("it holds `photo`"), "{exit:?}");
}

/// Calls `each` with every directory and file, and its mode.
fn modes(path: &Path, each: &mut dyn FnMut(&Path, bool, u32)) {
    let found = fs::metadata(path).unwrap();
    each(path, found.is_dir(), found.permissions().mode() & 0o7777);
    if found.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            modes(&entry.unwrap().path(), each);
        }
    }
}

fn check_private(store: &Path) {
    let mut files = 0;
    modes(store, &mut |path, is_dir, mode| {
        files += usize::from(!is_dir);
        assert_eq!(mode, if is_dir { 0o700 } else { 0o600 }, "{}: {mode:o}", path.display());
    });
    assert!(files > 4, "only {files} files were seen");
}

#[test]
fn the_files_of_a_store_are_for_its_owner_whatever_the_umask_is() {
    for umask in ["000", "022", "077", "277"] {
        let setup = Setup::before(&Backend::start());
        let config = setup.write_config();
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let init = ["store", "init", "--config", &config];
        let status = Command::new("sh").arg("-c").arg(script).arg(BINARY).args(init).status();
        assert!(status.unwrap().success());
        check_private(&setup.store_path());
        let mut gateway = setup.start();
        Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
        gateway = gateway.restarted();
        gateway.stop();
        assert!(!gateway.stderr().contains("permissions"), "{}", gateway.stderr());
        check_private(&setup.store_path());
    }
}

#[test]
fn wider_permissions_from_before_are_told() {
    let setup = Setup::before(&Backend::start());
    setup.start().stop();
    for (below, mode) in [("", 0o755), ("data", 0o750), ("data/log", 0o701), ("lock", 0o644)] {
        let path = setup.store_path().join(below);
        let private = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let mut gateway = setup.start();
        gateway.stop();
        let log = gateway.stderr();
        let line = log.lines().find(|line| line.contains("wider permissions"));
        let line = line.unwrap_or_else(|| panic!("{below}: {log}"));
        assert!(line.contains("WARN") && line.contains(&format!("{mode:04o}")), "{line}");
        assert!(line.contains("chmod -R go="), "{line}");
        fs::set_permissions(&path, private).unwrap();
    }
}

#[test]
fn a_token_file_that_every_user_may_read_is_told() {
    let backend = Backend::start();
    for (mode, is_told) in [(0o600, false), (0o440, false), (0o644, true), (0o604, true)] {
        let setup = Setup::before(&backend).admin("token_file = \"token\"");
        let token = setup.dir().join("token");
        fs::write(&token, "s3cret").unwrap();
        fs::set_permissions(&token, Permissions::from_mode(mode)).unwrap();
        let mut gateway = setup.start();
        gateway.stop();
        let log = gateway.stderr();
        let line = log.lines().find(|line| line.contains("may read the token"));
        assert_eq!(line.is_some(), is_told, "{mode:o}: {log}");
        if let Some(line) = line {
            assert!(line.contains("WARN") && line.contains(&format!("{mode:04o}")), "{line}");
        }
    }
}
