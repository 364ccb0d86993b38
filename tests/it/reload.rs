//! Changing the configuration of a running gateway: SIGHUP, changed files, and what stays as it is.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::support::admin::TOKEN;
use super::support::certificates::{Authority, Identity, connect, over};
use super::support::gateway::{BINARY, run};
use super::support::{
    AdminClient, Backend, Conn, Gate, Gateway, Request, Setup, answer, eventually,
};

/// Lines of the log that tell of a reload, and of one that failed.
fn reload_lines(gateway: &Gateway) -> (usize, usize) {
    let log = gateway.stderr();
    let count = |text| log.matches(text).count();
    (count("the configuration was reloaded"), count("the configuration was not reloaded"))
}

/// Waits until a reload succeeded.
#[track_caller]
fn reload(gateway: &Gateway) {
    let (before, failed) = reload_lines(gateway);
    gateway.hang_up();
    eventually("the reload is logged", || (reload_lines(gateway).0 > before).then_some(()));
    assert_eq!(reload_lines(gateway).1, failed, "{}", gateway.stderr());
}

/// Waits until a reload failed, and returns the log since.
#[track_caller]
fn refused(gateway: &Gateway) -> String {
    let (succeeded, before) = reload_lines(gateway);
    let length = gateway.stderr().len();
    gateway.hang_up();
    eventually("the failure is logged", || (reload_lines(gateway).1 > before).then_some(()));
    assert_eq!(reload_lines(gateway).0, succeeded, "{}", gateway.stderr());
    gateway.stderr()[length..].to_owned()
}

fn write(setup: &Setup, text: &str) {
    std::fs::write(setup.config_path(), text).unwrap();
}

fn edit(setup: &Setup, this: &str, that: &str) {
    let text = std::fs::read_to_string(setup.config_path()).unwrap();
    assert!(text.contains(this), "no {this:?} in:\n{text}");
    write(setup, &text.replace(this, that));
}

#[test]
fn routes_limits_and_upstreams_change_in_one_step() {
    let (backend, other) = (Backend::start(), Backend::start());
    let setup = Setup::before(&backend).limits("max_body = \"1KiB\"");
    let gateway = setup.start();
    let mut kept = Conn::open(gateway.addr);
    kept.write(Request::redeem("k1", "{}").bytes());
    kept.read().is(200, "executed", "");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(2000));
    Request::redeem("k2", &large).send(gateway.addr).is(413, "rejected", "body-too-large");
    edit(&setup, "max_body = \"1KiB\"", "max_body = \"1MiB\"");
    edit(&setup, &backend.addr().to_string(), &other.addr().to_string());
    let more = "[[route]]\nname = \"more\"\nmethods = [\"POST\"]\npath = \"/more\"\n\
                upstream = \"backend\"\n";
    let text = std::fs::read_to_string(setup.config_path()).unwrap();
    write(&setup, &format!("{text}{more}"));
    Request::new("POST", "/more").key("k3").json("{}").send(gateway.addr).is(
        405,
        "",
        "method-not-allowed",
    );
    reload(&gateway);
    Request::redeem("k2", &large).send(gateway.addr).is(200, "executed", "");
    Request::new("POST", "/more").key("k3").json("{}").send(gateway.addr).is(200, "executed", "");
    // A connection from before sees the change as well, and the old key its answer.
    kept.write(Request::redeem("k4", "{}").bytes());
    kept.read().is(200, "executed", "");
    kept.write(Request::redeem("k1", "{}").bytes());
    kept.read().is(200, "replayed", "");
    assert_eq!((backend.calls(), other.calls()), (1, 3));
}

#[test]
fn a_request_under_way_keeps_the_configuration_it_began_with() {
    let (backend, other) = (Backend::start(), Backend::start());
    let gate = Gate::default();
    let held = gate.clone();
    backend.script(move |_| answer(500, "{}").after(&held));
    let setup =
        Setup::before(&backend).redeem("outcome.final = [\"2xx\", \"5xx\"]\noutcome.unknown = []");
    let gateway = setup.start();
    let mut client = Request::redeem("k", "{}").begin(gateway.addr);
    backend.wait_calls(1);
    edit(&setup, "outcome.final = [\"2xx\", \"5xx\"]\noutcome.unknown = []", "");
    edit(&setup, &backend.addr().to_string(), &other.addr().to_string());
    reload(&gateway);
    gate.open();
    client.read().is(500, "executed", "");
    Request::redeem("k", "{}").send(gateway.addr).is(500, "replayed", "");
    assert_eq!((backend.calls(), other.calls()), (1, 0));
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let mut gateway = setup.start();
    let good = setup.toml();
    for (text, reason) in [
        ("this is = not [ TOML".to_owned(), "oncegate.toml"),
        (good.replace("path = \"/optional\"", "path = \"/optional\"\ncolour = 1"), "colour"),
        (good.replace("upstream = \"backend\"", "upstream = \"elsewhere\""), "elsewhere"),
        (
            good.replace(
                "listen = [\"127.0.0.1:0\"]",
                "listen = [\"127.0.0.1:0\"]\ntls = { cert = \"no.crt\", key = \"no.key\" }",
            ),
            "no.crt",
        ),
        (good.replace("[tenant]", "[tenant]\nheaders = [\"x-other\"]"), "accept_names"),
        (
            good.replace("key.required = false", "key.required = false\nkey.scope = \"route\""),
            "accept_names",
        ),
    ] {
        write(&setup, &text);
        let log = refused(&gateway);
        assert!(log.contains(reason), "{reason}: {log}");
        Request::redeem(&format!("k-{reason}-{}", text.len()), "{}")
            .send(gateway.addr)
            .is(200, "executed", "");
    }
    std::fs::remove_file(setup.config_path()).unwrap();
    let log = refused(&gateway);
    assert!(log.contains("cannot read this file"), "{log}");
    write(&setup, &good);
    reload(&gateway);
    gateway.stop();
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_taken() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).limits("max_body = \"1KiB\"");
    let gateway = setup.start();
    edit(&setup, "listen = [\"127.0.0.1:0\"]", "listen = [\"127.0.0.1:1\"]\nworkers = 7");
    edit(&setup, "max_body = \"1KiB\"", "max_body = \"1MiB\"");
    let store = setup.store_path();
    edit(&setup, &format!("{store:?}"), &format!("{:?}", setup.dir().join("other")));
    reload(&gateway);
    let log = gateway.stderr();
    for key in ["server.listen", "server.workers", "store"] {
        assert!(
            log.contains(&format!("key=\"{key}\"")) || log.contains(&format!("key={key}")),
            "{key}: {log}"
        );
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(2000));
    Request::redeem("k", &large).send(gateway.addr).is(200, "executed", "");
    assert!(!setup.dir().join("other").exists());
}

#[test]
fn a_limit_that_shrinks_and_grows_again_counts_what_is_open() {
    let backend = Backend::start();
    let gate = Gate::default();
    let held = gate.clone();
    backend.script(move |_| answer(200, "{}").after(&held));
    let setup = Setup::before(&backend).limits("in_flight = 3");
    let gateway = setup.start();
    let clients: Vec<_> =
        (0..3).map(|at| Request::redeem(&format!("k{at}"), "{}").begin(gateway.addr)).collect();
    backend.wait_calls(3);
    edit(&setup, "in_flight = 3", "in_flight = 1");
    reload(&gateway);
    Request::redeem("k", "{}").send(gateway.addr).is(503, "rejected", "overloaded");
    edit(&setup, "in_flight = 1", "in_flight = 4");
    reload(&gateway);
    let last = Request::redeem("k", "{}").begin(gateway.addr);
    backend.wait_calls(4);
    Request::redeem("k9", "{}").send(gateway.addr).is(503, "rejected", "overloaded");
    gate.open();
    for mut client in clients.into_iter().chain([last]) {
        client.read().is(200, "executed", "");
    }
}

/// A gateway with TLS from `folder`, below the setup's directory.
fn encrypted(backend: &Backend, folder: &str, more: &str) -> Setup {
    let tls = format!("tls = {{ cert = \"{folder}/tls.crt\", key = \"{folder}/tls.key\"{more} }}");
    Setup::before(backend).server(&tls)
}

/// Writes a version of the files as Kubernetes does: into a directory of its own, then `..data` is
/// turned to it.
fn publish(at: &Path, version: &str, identity: &Identity) {
    let folder = at.join(version);
    std::fs::create_dir_all(&folder).unwrap();
    identity.write(&folder, "tls");
    let turned = at.join("..data_tmp");
    symlink(version, &turned).unwrap();
    std::fs::rename(&turned, at.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        let _ = symlink(format!("..data/{file}"), at.join(file));
    }
}

/// The authority, one of `known`, whose certificate new connections see.
fn seen_by(gateway: &Gateway, known: &[&Authority]) -> Vec<bool> {
    let trusts =
        |authority: &&Authority| connect(gateway.addr, &Arc::new(authority.trusting(None))).is_ok();
    known.iter().map(trusts).collect()
}

#[test]
fn a_turned_data_link_replaces_certificate_and_key_together() {
    let (backend, one, two) = (Backend::start(), Authority::new("one"), Authority::new("two"));
    let setup = encrypted(&backend, "tls", "");
    let files = setup.dir().join("tls");
    publish(&files, "..2026_01", &one.server());
    let gateway = setup.start();
    assert_eq!(seen_by(&gateway, &[&one, &two]), [true, false]);
    let mut kept = connect(gateway.addr, &Arc::new(one.trusting(None))).unwrap();
    over(&mut kept, &Request::redeem("k", "{}")).unwrap().is(200, "executed", "");
    // Nobody tells the gateway: it looks at its files.
    publish(&files, "..2026_02", &two.server());
    eventually("the link is seen", || (reload_lines(&gateway).0 == 1).then_some(()));
    assert_eq!(seen_by(&gateway, &[&one, &two]), [false, true]);
    // Connections go on, and one change is one reload.
    over(&mut kept, &Request::redeem("k", "{}")).unwrap().is(200, "replayed", "");
    assert_eq!(reload_lines(&gateway), (1, 0), "{}", gateway.stderr());
}

#[test]
fn a_key_before_its_certificate_and_a_half_written_file_change_nothing() {
    let (backend, one, two) = (Backend::start(), Authority::new("one"), Authority::new("two"));
    let setup = encrypted(&backend, ".", "");
    one.server().write(setup.dir(), "tls");
    let gateway = setup.start();
    let next = two.server();
    std::fs::write(setup.dir().join("tls.key"), &next.key).unwrap();
    let log = refused(&gateway);
    assert!(log.contains("tls.key") && log.contains("together"), "{log}");
    std::fs::write(setup.dir().join("tls.crt"), &next.cert[..next.cert.len() / 2]).unwrap();
    let log = refused(&gateway);
    assert!(log.contains("tls.crt"), "{log}");
    assert_eq!(seen_by(&gateway, &[&one, &two]), [true, false]);
    std::fs::write(setup.dir().join("tls.crt"), &next.cert).unwrap();
    // The pair fits now, which is noticed without a signal.
    eventually("the pair is seen", || (reload_lines(&gateway).0 == 1).then_some(()));
    assert_eq!(seen_by(&gateway, &[&one, &two]), [false, true]);
}

#[test]
fn connections_whose_authority_is_gone_end_after_the_request_under_way() {
    let (backend, servers) = (Backend::start(), Authority::new("servers"));
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let gate = Gate::default();
    let held = gate.clone();
    backend.script(move |seen| {
        let reply = answer(200, "{}");
        if seen.target() == "/slow" { reply.after(&held) } else { reply }
    });
    let setup = encrypted(&backend, ".", ", client_ca = \"clients.pem\"");
    servers.server().write(setup.dir(), "tls");
    old.write(setup.dir(), "clients.pem");
    let gateway = setup.start();
    let config = Arc::new(servers.trusting(Some(&old.client("spiffe://old"))));
    let mut idle = connect(gateway.addr, &config).unwrap();
    over(&mut idle, &Request::get("/")).unwrap().is(200, "", "");
    let busy = connect(gateway.addr, &config).unwrap();
    let slow = std::thread::spawn(move || {
        let mut busy = busy;
        let first = over(&mut busy, &Request::get("/slow")).unwrap();
        (first, over(&mut busy, &Request::get("/")).is_ok())
    });
    backend.wait_calls(2);
    new.write(setup.dir(), "clients.pem");
    reload(&gateway);
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut idle, &mut rest);
    assert!(rest.is_empty(), "an idle connection ends");
    gate.open();
    let (first, second) = slow.join().unwrap();
    first.is(200, "", "");
    assert!(!second, "the connection ends with the request under way");
    assert_eq!(backend.calls(), 2);
    let config = Arc::new(servers.trusting(Some(&new.client("spiffe://new"))));
    let mut stream = connect(gateway.addr, &config).unwrap();
    over(&mut stream, &Request::get("/")).unwrap().is(200, "", "");
}

#[test]
fn many_reloads_under_load_lose_nothing_and_leak_nothing() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).limits("max_body = \"1MiB\"");
    let gateway = setup.start();
    let rounds: usize =
        std::env::var("ONCEGATE_TEST_RELOADS").map_or(60, |text| text.parse().unwrap());
    let (ended, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let before = gateway.descriptors();
    std::thread::scope(|scope| {
        for client in 0..3 {
            let (ended, sent, gateway) = (&ended, &sent, &gateway);
            scope.spawn(move || {
                let mut at = 0;
                let mut kept = Conn::open(gateway.addr);
                while !ended.load(Ordering::Relaxed) {
                    let request = Request::redeem(&format!("k-{client}-{at}"), "{}");
                    if at % 2 == 0 {
                        request.send(gateway.addr).is(200, "executed", "");
                    } else {
                        kept.write(request.bytes());
                        kept.read().is(200, "executed", "");
                    }
                    at += 1;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..rounds {
            let sizes = ["\"1MiB\"", "\"2MiB\""];
            edit(&setup, sizes[round % 2], sizes[(round + 1) % 2]);
            reload(&gateway);
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert_eq!(backend.calls(), sent.load(Ordering::Relaxed));
    eventually("the descriptors are as before", || {
        (gateway.descriptors() <= before + 8).then_some(())
    });
}

#[test]
fn check_shows_what_a_file_would_change_in_a_running_gateway() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).admin(&format!("token = \"{TOKEN}\""));
    let gateway = setup.start();
    let admin = AdminClient::of(&gateway);
    let shown = admin.get("/api/config").json();
    let digest = shown["digest"].as_str().unwrap().to_owned();
    assert!(!shown.to_string().contains(TOKEN), "{shown}");
    assert_eq!(shown["config"]["server"]["limits"]["max_body"], "1MiB");
    let token = setup.dir().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let against = |file: &Path| {
        run(&[
            "check",
            "--config",
            file.to_str().unwrap(),
            "--against",
            &format!("http://{}", gateway.admin),
            "--token-file",
            token.to_str().unwrap(),
        ])
    };
    let same = against(&setup.config_path());
    assert_eq!(same.code, Some(0), "{same:?}");
    assert!(same.stdout.contains("changes nothing"), "{same:?}");
    let next = setup.dir().join("next.toml");
    let text = setup.toml().replace("[server.limits]", "[server.limits]\nmax_body = \"2MiB\"");
    let text = text.replace("listen = [\"127.0.0.1:0\"]", "listen = [\"127.0.0.1:1\"]");
    std::fs::write(&next, &text).unwrap();
    let changed = against(&next);
    assert_eq!(changed.code, Some(0), "{changed:?}");
    for line in [
        "~ server.limits.max_body: \"1MiB\" -> \"2MiB\"",
        "~ server.listen: [\"127.0.0.1:0\"] -> [\"127.0.0.1:1\"] (needs a restart)",
    ] {
        assert!(changed.stdout.contains(line), "{changed:?}");
    }
    write(&setup, &text);
    reload(&gateway);
    let shown = admin.get("/api/config").json();
    assert_ne!(shown["digest"].as_str().unwrap(), digest);
    assert_eq!(shown["config"]["server"]["limits"]["max_body"], "2MiB");
    assert_eq!(shown["config"]["server"]["listen"][0], "127.0.0.1:0", "in force until a restart");
}

#[test]
fn the_id_of_another_store_is_refused() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let gateway = setup.start();
    let other = "expect_id = \"0198f3a0-7c1e-7d5b-9a3e-2f5d8c6b4a10\"";
    edit(&setup, "[store]\n", &format!("[store]\n{other}\n"));
    let log = refused(&gateway);
    assert!(log.contains("a start would be refused"), "{log}");
    edit(&setup, other, "");
    reload(&gateway);
}

#[test]
fn a_comparison_looks_at_files_from_any_working_directory() {
    let backend = Backend::start();
    let setup = AdminClient::guard(Setup::before(&backend))
        .on("[store.embedded]\npath = \"store-of-its-own\"");
    let gateway = setup.start();
    std::fs::write(setup.dir().join("the-token"), TOKEN).unwrap();
    let against = format!("http://{}", gateway.admin);
    let file = setup.config_path();
    let name = file.file_name().unwrap().to_str().unwrap();
    let output = std::process::Command::new(BINARY)
        .args(["check", "--config", name, "--against", &against, "--token-file", "the-token"])
        .current_dir(file.parent().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("changes nothing in the running gateway"), "{said}");
}
