//! Retries for unknown outcomes: the bound of steps at once, headers that a retry lends to a probe,
//! marks of bodies of other kinds, and late ends of the first call during its repetition.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::admin::Place;
use crate::support::{
    Act, AdminClient, Backend, Conn, Gate, Gateway, Kind, Request, Setup, Shop, answer, eventually,
};

const BODY: &str = r#"{"card":"C1","amount":5}"#;
const REDEEM: &str = "/v1/vouchers/redeem";

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

fn probing(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend))
        .redeem(r#"outcome.on_unknown = "probe""#)
        .redeem(r#"probe.path = "/sales/{key}""#)
        .redeem(r#"probe.min_age = "0s""#)
        .redeem(r#"probe.every = "50ms""#)
        .redeem(r#"probe.executed = { pointer = "/status", equals = "paid" }"#)
}

fn resending(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend))
        .redeem("key.forward = true")
        .redeem(r#"outcome.on_unknown = "resend""#)
        .redeem(r#"resend.within = "1h""#)
}

/// Steps that reached the backend, each held until the test lets it go.
#[derive(Clone, Default)]
struct HeldSteps(Arc<Mutex<VecDeque<Gate>>>);

impl HeldSteps {
    fn hold(&self, act: Act) -> Act {
        let gate = Gate::default();
        self.0.lock().unwrap().push_back(gate.clone());
        act.after(&gate)
    }

    /// Waits for a step and lets it go. Before, no more than `most` are at the backend at once.
    #[track_caller]
    fn let_one_go(&self, most: usize) {
        let gate = eventually("a step reaches the backend", || {
            let mut held = self.0.lock().unwrap();
            assert!(held.len() <= most, "{} steps at once, {most} allowed", held.len());
            held.pop_front()
        });
        gate.open();
    }
}

/// Loses `count` calls, and lets one step after the other go while clients retry all of them.
fn settled_within(gateway: &Gateway, held: &HeldSteps, (count, most): (usize, usize)) {
    let keys: Vec<String> = (0..count).map(|at| format!("k-{at}")).collect();
    for key in &keys {
        assert_eq!(redeem(key).send(gateway.addr).disposition(), "unknown");
    }
    let retries: Vec<Conn> = keys.iter().map(|key| redeem(key).begin(gateway.addr)).collect();
    for _ in 0..count {
        held.let_one_go(most);
    }
    for mut retry in retries {
        retry.read();
    }
}

#[test]
fn probes_of_the_schedule_and_of_retries_share_one_bound() {
    let (backend, held) = (Backend::start(), HeldSteps::default());
    let steps = held.clone();
    backend.script(move |seen| match seen.target() {
        REDEEM => Act::reset(),
        _ => steps.hold(answer(200, r#"{"status":"paid"}"#)),
    });
    let gateway = probing(&backend)
        .redeem("probe.concurrency = 2")
        .redeem(r#"duplicates.wait = "25s""#)
        .start();
    settled_within(&gateway, &held, (12, 2));
    for at in 0..12 {
        AdminClient::of(&gateway).show_in(&format!("k-{at}"), "final");
    }
    assert_eq!(backend.calls_to(REDEEM), 12);
}

#[test]
fn reversals_are_bounded_as_well() {
    let (backend, held) = (Backend::start(), HeldSteps::default());
    let steps = held.clone();
    backend.script(move |seen| match seen.target() {
        REDEEM => Act::reset(),
        _ => steps.hold(answer(200, "{}")),
    });
    let gateway = AdminClient::guard(Setup::before(&backend))
        .redeem(r#"outcome.on_unknown = "reverse""#)
        .redeem(r#"reverse.path = "/void/{key}""#)
        .redeem(r#"reverse.every = "1h""#)
        .redeem(r#"reverse.then = "fail""#)
        .redeem(r#"reverse.done = { status = "2xx" }"#)
        .redeem(r#"reverse.nothing = { status = 404 }"#)
        .redeem(r#"duplicates.wait = "25s""#)
        .upstream(r#"timeout = "2s""#)
        .start();
    settled_within(&gateway, &held, (10, 4));
    for at in 0..10 {
        AdminClient::of(&gateway).show_in(&format!("k-{at}"), "final");
    }
}

#[test]
fn a_retry_without_a_forwarded_header_asks_nothing_and_delays_nobody() {
    Place::each(|place| {
        let backend = Backend::start();
        backend.script(|seen| match seen.target() {
            REDEEM => Act::reset(),
            _ => answer(200, r#"{"status":"paid"}"#),
        });
        // A probe that failed would make the next one wait for an hour.
        let setup = probing(&backend)
            .redeem(r#"probe.forward = ["x-session", "x-shop"]"#)
            .replacing(r#"probe.every = "50ms""#, r#"probe.every = "1h""#);
        let gateways = place.start(&setup);
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        redeem("a").send(first.addr).is(502, "unknown", "outcome-unknown");
        for lacking in [redeem("a"), redeem("a").header("x-session", "s1")] {
            let reply = lacking.send(last.addr);
            reply.is(409, "unknown", "outcome-unknown");
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
        }
        assert_eq!(backend.calls(), 1, "nothing was asked");
        last.logs(&["WARN", "lacks a header", "x-session"]);
        let whole = redeem("a").header("x-session", "s1").header("x-shop", "7");
        // The clock of another replica may be a little behind that of the first.
        eventually("the retry asks", || {
            let reply = whole.send(last.addr);
            (reply.status == 200).then_some(())
        });
        let asked = backend.last();
        assert_eq!(asked.target(), "/sales/a");
        assert_eq!(asked.header("x-session").as_deref(), Some("s1"));
        assert_eq!(asked.header("x-shop").as_deref(), Some("7"));
        assert_eq!(asked.header("idempotency-key"), None, "only what is configured");
        assert_eq!(backend.calls(), 2);
        // Nothing of the headers is stored.
        let shown = AdminClient::of(last).show("a");
        assert!(!shown.to_string().contains("s1"), "{shown}");
    });
}

#[test]
fn bodies_without_members_take_a_mark_in_the_header_only() {
    let form = "application/x-www-form-urlencoded";
    let bodies: [(&str, Option<&str>); 5] = [
        (form, Some("card=C1&amount=5")),
        ("application/xml", Some("<sale><card>C1</card></sale>")),
        ("text/plain", Some("plain")),
        ("application/json", Some("[1,2]")),
        ("application/json", None),
    ];
    for (kind, body) in bodies {
        println!("{kind} {body:?}");
        let request = |key: &str| {
            let request = Request::new("POST", REDEEM).key(key).header("content-type", kind);
            body.map_or(request.clone(), |body| request.body(body.as_bytes()))
        };
        // A mark of the header goes with any body, which stays as it is.
        let backend = Backend::start();
        backend.always(Act::reset());
        let mark = r#"resend.mark = { header = { name = "x-repeat", value = "yes" } }"#;
        let gateway = resending(&backend).redeem(mark).start();
        request("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
        backend.always(answer(200, "{}"));
        request("a").send(gateway.addr).is(200, "recovered", "");
        let seen = backend.seen();
        assert_eq!(seen[1].header("x-repeat").as_deref(), Some("yes"));
        assert_eq!(seen[0].body, seen[1].body);
        drop(gateway);

        // A mark of the body fits none of these: an unmarked repetition could be executed.
        let backend = Backend::start();
        backend.always(Act::reset());
        let mark = r#"resend.mark = { body = { "/repeat" = true } }"#;
        let gateway = resending(&backend).redeem(mark).start();
        request("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
        let reply = request("a").send(gateway.addr);
        assert_eq!(
            (reply.disposition().as_str(), reply.error().as_str()),
            ("unknown", "outcome-unknown")
        );
        assert_eq!(backend.calls(), 1, "nothing is sent unmarked");
        let shown = AdminClient::of(&gateway).show("a");
        assert_eq!(shown["state"], "unknown", "{shown}");
        assert_eq!((&shown["attempts"], &shown["settlement"]["resent"]), (&json!(1), &json!(0)));
        assert!(shown["history"].to_string().contains("takes no mark"), "{shown}");
        gateway.logs(&["WARN", "gave_up"]);
    }
}

const DUPLICATE: &str = r#"{"code":"DUPLICATE"}"#;

/// The key, the late end of its call, the end of its repetition, and the state and body that stand.
type LateEnd = (&'static str, Act, Act, (&'static str, Option<&'static str>));

fn late_ends() -> [LateEnd; 5] {
    let first = || answer(200, r#"{"call":1}"#);
    let is_first = ("final", Some(r#"{"call":1}"#));
    [
        ("answered", first(), answer(200, r#"{"call":2}"#), is_first),
        ("lost", first(), Act::reset(), is_first),
        ("done", first(), answer(409, DUPLICATE), is_first),
        // Proof that the first call was not executed says nothing of a repetition under way.
        ("refused", answer(429, "{}"), Act::reset(), ("unknown", None)),
        (
            "failed",
            answer(503, "{}"),
            answer(200, r#"{"call":2}"#),
            ("final", Some(r#"{"call":2}"#)),
        ),
    ]
}

#[test]
fn the_late_end_of_a_call_during_its_repetition_is_kept_whatever_ends_first() {
    for place in [Place::Directory, Place::Server(Shop::borrow(Kind::Postgres))] {
        let backend = Backend::start();
        let gates: Vec<(Gate, Gate)> = late_ends().iter().map(|_| Default::default()).collect();
        let (held, calls) = (gates.clone(), Mutex::new([0; 5]));
        backend.script(move |seen| {
            let key = seen.header("idempotency-key").expect("a key");
            let ends = late_ends();
            let at = ends.iter().position(|(name, ..)| *name == key).expect("a known key");
            let call = std::mem::replace(&mut calls.lock().unwrap()[at], 1);
            match call {
                0 => ends[at].1.clone().after(&held[at].0),
                _ => ends[at].2.clone().after(&held[at].1),
            }
        });
        let setup = resending(&backend)
            .upstream(r#"timeout = "6s""#)
            .redeem("resend.attempts = 1")
            .redeem("already_done.status = 409")
            .redeem(r#"already_done.pointer = "/code""#)
            .redeem(r#"already_done.equals = "DUPLICATE""#)
            .redeem(r#"already_done.then = "hold""#);
        let gateways = place.start(&setup);
        let (owner, other) = (&gateways[0], &gateways[gateways.len() - 1]);
        let admin = AdminClient::of(owner);
        let names: Vec<&str> = late_ends().iter().map(|(name, ..)| *name).collect();
        let mut calls: Vec<Conn> = names.iter().map(|key| redeem(key).begin(owner.addr)).collect();
        for call in &mut calls {
            call.read().is(504, "unknown", "outcome-unknown");
        }
        let mut retries: Vec<Conn> =
            names.iter().map(|key| redeem(key).begin(other.addr)).collect();
        backend.wait_calls(2 * names.len());
        // The late ends come first, and are recorded; then the repetitions end.
        gates.iter().for_each(|(first, _)| first.open());
        for (name, _, _, (_, body)) in &late_ends() {
            if body.is_some_and(|body| body.contains('1')) {
                admin.show_in(name, "final");
            }
        }
        gates.iter().for_each(|(_, second)| second.open());
        retries.iter_mut().for_each(|retry| drop(retry.read()));
        for (name, _, _, (state, body)) in late_ends() {
            let shown = admin.show_in(name, state);
            let reply = redeem(name).send(other.addr);
            match body {
                Some(body) => {
                    assert_eq!(
                        (reply.status, reply.text().as_str()),
                        (200, body),
                        "{name}: {reply:?}"
                    );
                    assert!(!shown.to_string().contains("DUPLICATE"), "{name}: {shown}");
                }
                None => assert_eq!(reply.disposition(), "unknown", "{name}: {reply:?}"),
            }
        }
        assert_eq!(backend.calls(), 2 * names.len(), "the repetitions are used up");
    }
}
