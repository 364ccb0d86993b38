//! Faults of backends while outcomes are settled: on all stores no key is freed, and nothing is
//! executed twice.

use crate::support::desk::Place;
use crate::support::{Backend, Desk, Gate, Request, Setup, answer, eventually};

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
        let setup = Desk::guard(Setup::before(&backend))
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
            let shown = Desk::of(&gateways[0]).show("a").to_string();
            shown.contains("nothing was sent").then_some(())
        });
        gate.open();
        let told = eventually("the answer is shown", || {
            let told = redeem("a").send(gateways[gateways.len() - 1].addr);
            matches!(told.disposition().as_str(), "pending" | "recovered").then_some(told)
        });
        assert!(matches!(told.status, 200 | 202), "{told:?}");
        Desk::of(&gateways[0]).show_in("a", "final");
        assert_eq!(backend.calls_to("/v1/vouchers/redeem"), 1);
        assert!(backend.calls_to("/jobs/7") > 0);
    });
}
