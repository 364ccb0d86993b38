//! Duplicates: one call for all of them, the same answer for each, and nothing across tenants.

use std::time::Duration;

use crate::support::{Act, Backend, Gate, Gateway, Request, Setup, answer, at_once, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

#[test]
fn a_hundred_duplicates_at_once_make_one_call_and_get_one_answer() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let held = gate.clone();
    backend.script(move |seen| {
        answer(200, &format!(r#"{{"execution":{}}}"#, seen.number)).after(&held)
    });
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#).start();
    let mut conns = at_once(100, |_| Request::redeem("k", BODY).begin(gateway.addr));
    backend.wait_calls(1);
    gate.open();
    let answers: Vec<_> = conns.iter_mut().map(|conn| conn.read()).collect();
    let count = |wanted: &str| answers.iter().filter(|one| one.disposition() == wanted).count();
    assert_eq!((count("executed"), count("replayed")), (1, 99));
    let kept = answers[0].kept();
    assert!(answers.iter().all(|one| one.kept() == kept));
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_hundred_duplicates_without_waiting_make_one_call() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "0s""#).start();
    let answers = at_once(100, |_| Request::redeem("k", BODY).send(gateway.addr).summary());
    let reply = |status: u16, disposition: &str, error: &str| {
        let wanted = (status, disposition.to_owned(), error.to_owned());
        answers.iter().filter(|one| **one == wanted).count()
    };
    let in_progress = reply(409, "in-progress", "request-in-progress");
    assert_eq!(reply(200, "executed", ""), 1);
    assert_eq!(1 + in_progress + reply(200, "replayed", ""), 100, "{answers:?}");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn different_keys_run_at_the_same_time() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend).start();
    let mut conns =
        at_once(50, |index| Request::redeem(&format!("k-{index}"), BODY).begin(gateway.addr));
    backend.wait_calls(50);
    gate.open();
    assert!(conns.iter_mut().all(|conn| conn.read().disposition() == "executed"));
    assert_eq!(backend.calls(), 50);
}

#[test]
fn waiting_ends_after_its_time_with_409() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "50ms""#).start();
    let mut first = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    let reply = Request::redeem("k", BODY).send(gateway.addr);
    reply.is(409, "in-progress", "request-in-progress");
    assert!(reply.header("retry-after").is_some());
    gate.open();
    first.read().is(200, "executed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn only_so_many_duplicates_wait() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend)
        .redeem("duplicates.wait = \"30s\"\nduplicates.max_waiters = 2")
        .start();
    let mut first = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    let mut others: Vec<_> =
        (0..5).map(|_| Request::redeem("k", BODY).begin(gateway.addr)).collect();
    let mut refused = Vec::new();
    eventually("three of five are refused", || {
        let reply =
            others.iter_mut().position(|conn| conn.readable_within(Duration::from_millis(10)));
        if let Some(index) = reply {
            refused.push(others.remove(index).read());
        }
        (refused.len() == 3).then_some(())
    });
    for reply in &refused {
        reply.is(409, "in-progress", "request-in-progress");
    }
    gate.open();
    first.read().is(200, "executed", "");
    for mut other in others {
        other.read().is(200, "replayed", "");
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_waiting_duplicate_that_left_makes_room_when_its_time_is_over_at_the_latest() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend)
        .redeem("duplicates.wait = \"5s\"\nduplicates.max_waiters = 1")
        .start();
    let mut first = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    Request::redeem("k", BODY).begin(gateway.addr).reset();
    let mut waiting = eventually("a place to wait becomes free", || {
        let mut conn = Request::redeem("k", BODY).begin(gateway.addr);
        (!conn.readable_within(Duration::from_secs(1))).then_some(conn)
    });
    gate.open();
    first.read().is(200, "executed", "");
    waiting.read().is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn another_request_under_the_key_is_refused_also_while_the_first_is_in_flight() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#).start();
    let mut first = Request::redeem("k", r#"{"qr":"hidden-1","n":1}"#).begin(gateway.addr);
    backend.wait_calls(1);
    let other = Request::redeem("k", r#"{"qr":"hidden-2","n":1}"#).send(gateway.addr);
    other.is(422, "rejected", "key-reused");
    assert!(other.text().contains(r#""qr""#) && !other.text().contains("hidden"), "{other:?}");
    gate.open();
    first.read().is(200, "executed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn two_requests_that_race_for_a_key_make_one_call() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for round in 0..20 {
        let key = format!("k-{round}");
        let reply = at_once(8, |index| {
            let body = format!(r#"{{"qr":"{}"}}"#, index % 2);
            Request::redeem(&key, &body).send(gateway.addr).summary().0
        });
        assert!(reply.iter().all(|status| [200, 422].contains(status)), "{reply:?}");
        assert_eq!(reply.iter().filter(|status| **status == 200).count(), 4, "{reply:?}");
        assert_eq!(backend.calls(), round + 1);
    }
}

#[test]
fn tenants_do_not_meet_under_one_key() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let held = gate.clone();
    backend.script(move |seen| {
        let tenant = seen.header("x-api-key").unwrap_or_default();
        let act = answer(200, &format!(r#"{{"for":"{tenant}"}}"#));
        if tenant == "a" { act.after(&held) } else { act }
    });
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "0s""#).start();
    let send = |tenant: &str, body: &str| Request::redeem("k", body).tenant(tenant);
    let mut first = send("a", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    // While a's call is in flight, b is neither told of it nor held up by it.
    send("b", BODY).send(gateway.addr).is(200, "executed", "");
    let anonymous = Request::redeem("k", r#"{"other":1}"#).send(gateway.addr);
    anonymous.is(200, "executed", "");
    let bearer = Request::redeem("k", BODY).header("authorization", "Bearer a");
    bearer.send(gateway.addr).is(200, "executed", "");
    gate.open();
    first.read().is(200, "executed", "");
    let replayed = send("a", BODY).send(gateway.addr);
    replayed.is(200, "replayed", "");
    assert_eq!(replayed.text(), r#"{"for":"a"}"#);
    assert_eq!(send("b", BODY).send(gateway.addr).text(), r#"{"for":"b"}"#);
    assert_eq!(backend.calls(), 4);
}

#[test]
fn the_configured_headers_alone_tell_tenants_apart() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).tenant(r#"headers = ["x-shop"]"#).start();
    let send = |shop: &str, api_key: &str| {
        let request = Request::redeem("k", BODY).tenant(api_key).header("x-shop", shop);
        request.send(gateway.addr).disposition()
    };
    assert_eq!(send("a", "old"), "executed");
    assert_eq!(send("a", "new"), "replayed");
    assert_eq!(send("b", "old"), "executed");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn duplicates_of_a_call_that_could_not_be_made_execute_at_most_once() {
    let backend = Backend::refusing();
    let gateway = Setup::before(&backend).start();
    let reply = at_once(20, |_| Request::redeem("k", BODY).send(gateway.addr).summary());
    for one in &reply {
        assert!(
            *one == (502, "not-executed".into(), "upstream-unreachable".into())
                || *one == (409, "in-progress".into(), "request-in-progress".into()),
            "{one:?}"
        );
    }
    backend.listen();
    let reply = at_once(20, |_| Request::redeem("k", BODY).send(gateway.addr));
    let executed = reply.iter().filter(|one| one.disposition() == "executed").count();
    assert_eq!(executed, 1);
    assert_eq!(backend.calls(), 1);
}

#[test]
fn duplicates_of_a_released_call_execute_one_after_the_other() {
    let backend = Backend::start();
    backend.script(|seen| match seen.number {
        0..3 => answer(429, r#"{"slow":"down"}"#),
        _ => answer(200, "{}"),
    });
    let gateway = Setup::before(&backend).start();
    let reply = eventually("somebody is served", || {
        let reply = at_once(10, |_| Request::redeem("k", BODY).send(gateway.addr));
        reply.iter().any(|one| one.status == 200).then_some(reply)
    });
    let kept = reply.iter().find(|one| one.status == 200).unwrap().kept();
    for one in &reply {
        assert!(one.status == 429 || one.status == 409 || one.kept() == kept, "{one:?}");
    }
    let settled = backend.seen().iter().filter(|seen| seen.number >= 3).count();
    assert_eq!(settled, 1, "the answer that counted was given once");
}

#[test]
fn duplicates_that_wait_for_a_lost_call_are_told_that_it_is_unknown() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(Act::close().after(&gate));
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#).start();
    let mut first = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    let mut others: Vec<_> =
        (0..10).map(|_| Request::redeem("k", BODY).begin(gateway.addr)).collect();
    gate.open();
    first.read().is(502, "unknown", "outcome-unknown");
    for other in &mut others {
        let reply = other.read();
        assert_eq!(
            (reply.disposition(), reply.error()),
            ("unknown".into(), "outcome-unknown".into())
        );
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn many_keys_with_many_duplicates_make_one_call_each() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    at_once(32, |thread| {
        for step in 0..10 {
            let index = (step + thread) % 10;
            let body = format!(r#"{{"key":{index}}}"#);
            let reply = Request::redeem(&format!("k-{index}"), &body).send(gateway.addr);
            assert_eq!(reply.status, 200);
        }
    });
    let executions = backend.executions();
    assert_eq!(executions.len(), 10);
    assert!(executions.values().all(|count| *count == 1), "{executions:?}");
}

#[test]
fn a_replay_echoes_the_headers_of_its_own_request() {
    let backend = Backend::start();
    let first = [("X-Trace", "one"), ("X-Kept", "stored")];
    backend.always(Act::whole(200, &first, b"{}"));
    let setup =
        Setup::before(&backend).redeem(r#"duplicates.echo_headers = ["X-Trace", "X-Kept"]"#);
    let mut gateway = setup.start();
    let send = |gateway: &Gateway, trace: &[&str]| {
        let request = Request::redeem("k", "{}");
        let request = trace.iter().fold(request, |request, value| request.header("x-trace", value));
        request.send(gateway.addr)
    };
    // The backend's own answer stays as it is.
    let reply = send(&gateway, &["two"]);
    reply.is(200, "executed", "");
    assert_eq!(reply.all("x-trace"), ["one"]);
    // From the cache, and from the store after a restart; several lines, and none.
    for restarts in [false, true] {
        if restarts {
            gateway.stop();
            gateway = setup.start();
        }
        for (sent, shown) in
            [(&["three"][..], &["three"][..]), (&["a", "b"], &["a", "b"]), (&[], &["one"])]
        {
            let reply = send(&gateway, sent);
            reply.is(200, "replayed", "");
            assert_eq!(reply.all("x-trace"), shown);
            assert_eq!(reply.header("x-kept").as_deref(), Some("stored"));
        }
    }
    assert_eq!(backend.calls(), 1);
}
