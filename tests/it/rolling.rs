//! Replicas behind a load balancer restart one after the other, under load.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::support::metrics::try_metric;
use super::support::{Backend, Gateway, Kind, Request, Setup, Shop, eventually};
use crate::servers::{Hop, free_port};

/// A replica on ports that it keeps over its restarts.
fn replica(backend: &Backend, shop: &Shop) -> Setup {
    let (port, admin) = (free_port(), free_port());
    Setup::before(backend)
        .listen(format!("127.0.0.1:{port}"))
        .server("drain_delay = \"3s\"")
        .replacing(
            "[admin]\nlisten = \"127.0.0.1:0\"",
            format!("[admin]\nlisten = \"127.0.0.1:{admin}\""),
        )
        .on(shop.table(""))
}

#[test]
fn a_rolling_restart_loses_no_request_and_leaves_none_unknown() {
    let backend = Backend::start();
    let shop = Shop::borrow(Kind::Redis);
    let setups = [replica(&backend, &shop), replica(&backend, &shop)];
    let mut gateways: Vec<Gateway> = setups.iter().map(Setup::start).collect();
    let addresses: Vec<(SocketAddr, SocketAddr)> =
        gateways.iter().map(|gateway| (gateway.addr, gateway.admin)).collect();
    let balancer = Hop::balancing(&addresses);
    let to = balancer.addr();
    eventually("the balancer sees a replica", || {
        (Request::get("/").try_send(to).ok()?.status == 200).then_some(())
    });
    let before = backend.calls();
    let rounds: usize =
        std::env::var("ONCEGATE_TEST_RESTARTS").map_or(1, |text| text.parse().unwrap());
    let (ended, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..3 {
            let (ended, sent) = (&ended, &sent);
            scope.spawn(move || {
                let mut at = 0;
                while !ended.load(Ordering::Relaxed) {
                    let request = Request::redeem(&format!("k-{client}-{at}"), "{}");
                    request.send(to).is(200, "executed", "");
                    at += 1;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..rounds {
            for at in 0..gateways.len() {
                gateways[at].stop();
                gateways[at] = setups[at].start();
                // The balancer sends requests to it again before the next one goes.
                let admin = gateways[at].admin;
                eventually("the replica serves requests", || {
                    let series = r#"oncegate_requests_total{route="redeem",outcome="executed"}"#;
                    // The series is there from the start, with a count of 0.
                    (try_metric(admin, series)? > 0).then_some(())
                });
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert_eq!(backend.calls() - before, sent.load(Ordering::Relaxed));
    assert_eq!(shop.in_flight(), 0);
}
