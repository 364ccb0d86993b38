//! Faults of backends while outcomes are settled: on all stores no key is freed, and nothing is
//! executed twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::admin::Place;
use crate::support::{Act, AdminClient, Backend, Gate, Request, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1","metadata":"receipt:7"}"#;

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

#[test]
fn a_pending_answer_after_the_timeout_is_shown_as_one_in_time() {
    Place::each(|place| {
        let (backend, gate) = (Backend::start(), Gate::default());
        let late = gate.clone();
        backend.script(move |seen| match seen.target() {
            "/v1/vouchers/redeem" => answer(202, r#"{"job":7}"#).after(&late),
            "/jobs/7" => answer(200, r#"{"status":"paid"}"#),
            _ => answer(404, "{}"),
        });
        let setup = AdminClient::guard(Setup::before(&backend))
            .upstream(r#"timeout = "3s""#)
            .redeem(r#"outcome.on_unknown = "probe""#)
            .redeem("outcome.pending = [202]")
            .redeem(r#"probe.path = "/jobs/{answer:/job}""#)
            .redeem(r#"probe.min_age = "0s""#)
            .redeem(r#"probe.every = "50ms""#)
            .redeem(r#"probe.executed = { pointer = "/status", equals = "paid" }"#);
        let gateways = place.start(&setup);
        redeem("a").send(gateways[0].addr).is(504, "unknown", "outcome-unknown");
        // The question needs the answer that is still under way, so it cannot be asked yet.
        eventually("the policy gives up", || {
            let shown = AdminClient::of(&gateways[0]).show("a").to_string();
            shown.contains("nothing was sent").then_some(())
        });
        gate.open();
        let reply = eventually("the answer is shown", || {
            let reply = redeem("a").send(gateways[gateways.len() - 1].addr);
            matches!(reply.disposition().as_str(), "pending" | "recovered").then_some(reply)
        });
        assert!(matches!(reply.status, 200 | 202), "{reply:?}");
        AdminClient::of(&gateways[0]).show_in("a", "final");
        assert_eq!(backend.calls_to("/v1/vouchers/redeem"), 1);
        assert!(backend.calls_to("/jobs/7") > 0);
    });
}

#[test]
fn a_row_on_one_of_two_nodes_settles_and_its_absence_on_the_other_frees_nothing() {
    Place::each(|place| {
        let backend = Backend::start();
        let lists = AtomicUsize::new(0);
        backend.script(move |seen| match seen.target() {
            "/v1/vouchers/redeem" => Act::reset(),
            "/health" => answer(200, "{}"),
            // The look-ups go to the two nodes in turn, and the second has the row.
            _ => match lists.fetch_add(1, Ordering::SeqCst) % 2 {
                0 => answer(200, r#"{"data":[]}"#),
                _ => answer(200, r#"{"data":[{"id":1,"metadata":"receipt:7"}]}"#),
            },
        });
        let setup = AdminClient::guard(Setup::before(&backend))
            .upstream(r#"timeout = "1s""#)
            .redeem(r#"outcome.on_unknown = "probe""#)
            .redeem(r#"probe.path = "/list""#)
            .redeem(r#"probe.rows = "/data""#)
            .redeem(r#"probe.match = { "/metadata" = "{/metadata}" }"#)
            .redeem(r#"probe.min_age = "1500ms""#)
            .redeem(r#"probe.every = "50ms""#)
            .redeem(r#"probe.executed = { pointer = "/id", present = true }"#)
            .redeem(
                r#"probe.absent = { after = "10ms", sightings = 3, look_back = "1h", control = "/health" }"#,
            );
        let gateways = place.start(&setup);
        assert_eq!(redeem("a").send(gateways[0].addr).disposition(), "unknown");
        AdminClient::of(&gateways[gateways.len() - 1]).show_in("a", "final");
        let reply = redeem("a").send(gateways[0].addr);
        assert_eq!((reply.status, reply.disposition().as_str()), (200, "recovered"), "{reply:?}");
        assert_eq!(backend.calls_to("/v1/vouchers/redeem"), 1);
        assert!(backend.calls_to("/list") >= 2, "the first node was asked as well");
    });
}

#[test]
fn suspects_are_found_across_replicas() {
    Place::each(|place| {
        let (backend, gate) = (Backend::start(), Gate::default());
        let held = gate.clone();
        backend.script(move |seen| match seen.header("x-slow") {
            Some(_) => answer(200, "{}").after(&held),
            None => answer(200, "{}"),
        });
        let setup = AdminClient::guard(Setup::before(&backend))
            .redeem("record.subject = \"/qr\"")
            .redeem("suspect = { within = \"10m\", then = \"refuse\" }");
        let gateways = place.start(&setup);
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        let mut slow = redeem("slow").header("x-slow", "1").begin(first.addr);
        backend.wait_calls(1);
        let reply = redeem("k").send(last.addr);
        reply.is(409, "rejected", "suspected-duplicate");
        assert!(
            reply.header("idempotency-earlier").unwrap().contains("key=\"slow\", state=in_flight")
        );
        gate.open();
        assert_eq!(slow.read().status, 200);
        AdminClient::of(last).show_in("slow", "final");
        let reply = redeem("k").send(last.addr);
        reply.is(409, "rejected", "suspected-duplicate");
        assert!(reply.header("idempotency-earlier").unwrap().contains("state=final, status=200"));
        let insisted = redeem("k").header("idempotency-override", "suspected-duplicate");
        let insisted = insisted.send(last.addr);
        assert_eq!(insisted.status, 200, "{insisted:?}");
        assert!(insisted.header("idempotency-earlier").is_some());
        assert_eq!(backend.calls(), 2);
        // Another caller's key is no suspect.
        let other = redeem("k").tenant("u").send(last.addr);
        assert_eq!((other.status, other.header("idempotency-earlier")), (200, None));
    });
}
