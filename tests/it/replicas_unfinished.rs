//! What the store did not confirm is made later: outcomes are waited for, and what was refused
//! meanwhile does not take their place.

use crate::support::{Backend, Gate, Kind, Request, Setup, Shop, answer, eventually};

/// Claims at once, and as many places for what is unfinished.
const CLAIMS: usize = 2;

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"qr":"{key}"}}"#))
}

#[test]
fn a_drain_waits_until_the_store_has_every_outcome() {
    Kind::both(|kind| {
        let (backend, gate) = (Backend::start(), Gate::default());
        backend.always(answer(200, r#"{"drained":true}"#).after(&gate));
        let shop = Shop::borrow(kind);
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "200ms""#);
        let (mut owner, chaos) = shop.replica_behind(&setup, "");
        let other = shop.replica(&setup, "");
        let mut call = redeem("k").begin(owner.addr);
        backend.wait_calls(1);
        chaos.refuse(true);
        chaos.cut_all();
        gate.open();
        let reply = call.read();
        reply.is(200, "unrecorded", "");
        owner.sigterm();
        eventually("it takes no new connections", || {
            crate::support::Conn::try_open(owner.addr).is_err().then_some(())
        });
        assert!(!owner.ended(), "it ended with an outcome that nobody has");
        chaos.keep();
        assert_eq!(owner.wait().code(), Some(0), "{}", owner.stderr());
        // At once, from the store: nothing has to be given up for lost before.
        let again = redeem("k").send(other.addr);
        assert_eq!(again.is(200, "replayed", "").kept(), reply.kept());
        assert_eq!((backend.calls(), shop.in_flight()), (1, 0));
    });
}

#[test]
fn what_was_refused_while_the_store_was_away_takes_no_place_of_an_outcome() {
    Kind::both(|kind| {
        let (backend, gate) = (Backend::start(), Gate::default());
        backend.always(answer(200, r#"{"n":1}"#).after(&gate));
        let shop = Shop::borrow(kind);
        let limit = format!("in_flight = {CLAIMS}");
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "200ms""#).limits(&limit);
        let (owner, chaos) =
            shop.replica_behind(&setup, "timeout = \"500ms\"\nconnect_timeout = \"500ms\"");
        let other = shop.replica(&setup, "");
        let mut call = redeem("k").begin(owner.addr);
        backend.wait_calls(1);
        chaos.refuse(true);
        chaos.cut_all();
        // Each leaves a withdrawal, more than there are places for.
        for n in 0..2 * CLAIMS {
            let reply = redeem(&format!("refused-{n}")).send(owner.addr);
            reply.is(503, "rejected", "store-unavailable");
        }
        let log = owner.stderr();
        assert!(log.contains("too many changes wait for the store"), "{log}");
        gate.open();
        let reply = call.read();
        reply.is(200, "unrecorded", "");
        chaos.keep();
        let again = eventually("its outcome is recorded", || {
            let again = redeem("k").send(other.addr);
            (again.disposition() == "replayed").then_some(again)
        });
        assert_eq!(again.kept(), reply.kept());
        assert_eq!((backend.calls(), shop.in_flight()), (1, 0));
    });
}
