//! `buffered` counts what is held: kept answers until slow clients have them, and the copies of
//! answers that the store has not taken yet.

use crate::support::{
    Act, Backend, Conn, Gate, Gateway, Kind, Request, Setup, Shop, answer, eventually,
};

/// More than two sockets and their windows hold when nobody reads.
const LARGE: usize = 12 << 20;

/// Bytes that the gateway counts as buffered.
fn buffered(gateway: &Gateway) -> usize {
    let bytes = gateway.metric("oncegate_buffered_bytes").expect("the sample");
    usize::try_from(bytes).expect("a size in memory")
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"qr":"{key}"}}"#))
}

#[track_caller]
fn nothing_is_left(gateway: &Gateway) {
    eventually("all is given back", || (buffered(gateway) == 0).then_some(()));
}

#[test]
fn kept_answers_count_until_slow_clients_have_them() {
    let backend = Backend::start();
    let large = "x".repeat(LARGE);
    backend.script(move |seen| match seen.text().contains("large") {
        true => Act::whole(200, &[], large.as_bytes()),
        false => answer(200, "{}"),
    });
    let setup = Setup::before(&backend)
        .limits("buffered = \"32MiB\"")
        .redeem("record.max_stored_body = \"16MiB\"");
    let gateway = setup.start();
    let keys = ["large-1", "large-2", "large-3"];
    for key in keys.iter().chain(&["small"]) {
        redeem(key).send(gateway.addr).is(200, "executed", "");
        nothing_is_left(&gateway);
    }
    let slow = |key: &str, count: usize| -> Conn {
        let client = redeem(key).begin(gateway.addr);
        eventually("the answer is counted", || (buffered(&gateway) >= count * LARGE).then_some(()));
        client
    };
    let mut clients = [slow("large-1", 1), slow("large-2", 2)];
    let refused = redeem("large-3").send(gateway.addr);
    refused.is(503, "rejected", "overloaded");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    redeem("small").send(gateway.addr).is(200, "replayed", "");
    clients[0].read().is(200, "replayed", "");
    eventually("there is room again", || {
        (redeem("large-3").send(gateway.addr).disposition() == "replayed").then_some(())
    });
    drop(clients);
    nothing_is_left(&gateway);
    assert_eq!(backend.calls(), 4);
}

#[test]
fn answers_that_the_store_has_not_taken_count_until_it_has() {
    const BYTES: usize = 300_000;
    Kind::both(|kind| {
        let (backend, gate) = (Backend::start(), Gate::default());
        let large = "x".repeat(BYTES);
        backend.always(Act::whole(200, &[], large.as_bytes()).after(&gate));
        let shop = Shop::borrow(kind);
        let (gateway, chaos) = shop.replica_behind(&Setup::before(&backend), "");
        let mut client = redeem("a").begin(gateway.addr);
        backend.wait_calls(1);
        chaos.refuse(true);
        chaos.cut_all();
        gate.open();
        client.read().is(200, "unrecorded", "");
        // The client has its answer, and the store does not.
        drop(client);
        assert!(buffered(&gateway) >= BYTES, "{}", buffered(&gateway));
        chaos.keep();
        nothing_is_left(&gateway);
        eventually("the answer is recorded", || {
            (redeem("a").send(gateway.addr).disposition() == "replayed").then_some(())
        });
        assert_eq!(backend.calls(), 1);
    });
}
