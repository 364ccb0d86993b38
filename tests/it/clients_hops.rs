//! Hops of other people before and behind the gateway: nothing that they repeat, drop or put in the
//! place of an answer makes an operation execute twice.

use std::net::SocketAddr;

use crate::clients::{Chain, backend_with_faults, check};
use crate::servers::{Hop, HopKind};
use crate::support::programs::Program;
use crate::support::{Conn, Request, at_once};

/// As many tries as it took to see every double execution without the gateway.
const TRIES: usize = 10;

const CLIENTS: [(Program, &str); 5] = [
    (Program::CurlAllErrors, "ietf"),
    (Program::Requests, "ietf"),
    (Program::Go, "ietf"),
    (Program::StripePython, "stripe"),
    (Program::StripeNode, "stripe"),
];

/// Clients with their own retries, and requests without a body, which some hops repeat by
/// themselves.
#[track_caller]
fn check_hops(kind: HopKind) {
    at_once(CLIENTS.len() + 1, |index| match CLIENTS.get(index) {
        Some((program, profile)) => drop(check(*program, profile, Some(kind))),
        None => check_without_body(kind),
    });
}

#[track_caller]
fn check_without_body(kind: HopKind) {
    let chain = Chain::start("ietf", Some(kind));
    for fault in ["closes", "resets", "front-closes", "front-resets"] {
        for folder in ["/v1", "/v2"] {
            for target in send_without_body(chain.addr(), folder, fault) {
                assert_eq!(chain.backend.calls_to(&target), 1, "{kind:?}: {target}");
            }
        }
    }
}

/// Requests without a body for this fault, each on a connection that has been used; gives their
/// targets.
#[track_caller]
fn send_without_body(to: SocketAddr, folder: &str, fault: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for method in ["POST", "DELETE"] {
        for number in 0..TRIES {
            let key = format!("{folder}/{fault}-{method}-{number}");
            let target = format!("{folder}/{fault}?{method}-{number}");
            let mut conn = Conn::open(to);
            conn.write(without_body(method, &format!("{folder}/none"), &format!("first-{key}")));
            assert_eq!(conn.read().status, 200, "{target}");
            conn.write(without_body(method, &target, &key));
            // A hop may give up without an answer.
            _ = conn.try_read(false);
            targets.push(target);
        }
    }
    targets
}

/// A request of a client that sets every name of the header, to be safe.
fn without_body(method: &str, target: &str, key: &str) -> Vec<u8> {
    let mut request = Request::new(method, target);
    for name in ["idempotency-key", "x-idempotency-key", "paypal-request-id"] {
        request = request.header(name, key);
    }
    if method == "POST" { request.body(b"").bytes() } else { request.bytes() }
}

#[test]
fn nginx_before_and_behind() {
    check_hops(HopKind::Nginx);
}

#[test]
fn haproxy_before_and_behind() {
    check_hops(HopKind::HaProxy);
}

#[test]
fn go_reverse_proxy_before_and_behind() {
    check_hops(HopKind::Go);
}

/// The calls that reach a backend for each request of this method, without the gateway.
#[track_caller]
fn check_repeats(kind: HopKind, method: &str, calls: usize) {
    let backend = backend_with_faults();
    let hop = Hop::before(backend.addr(), kind);
    for fault in ["closes", "resets"] {
        let targets = send_without_body(hop.addr(), "/v1", fault);
        for target in targets.iter().filter(|target| target.contains(method)) {
            assert_eq!(backend.calls_to(target), calls, "{kind:?}: {target}");
        }
    }
}

/// So the tests above see something; and what docs/clients.md says of these hops holds.
#[test]
fn hops_repeat_by_themselves_what_got_no_answer() {
    check_repeats(HopKind::Nginx, "POST", 1);
    check_repeats(HopKind::Nginx, "DELETE", 1);
    check_repeats(HopKind::NginxThatRepeats, "POST", 1);
    check_repeats(HopKind::NginxThatRepeats, "DELETE", 2);
    check_repeats(HopKind::NginxNonIdempotent, "POST", 2);
    check_repeats(HopKind::NginxNonIdempotent, "DELETE", 2);
    check_repeats(HopKind::HaProxy, "POST", 1);
    check_repeats(HopKind::HaProxy, "DELETE", 1);
    check_repeats(HopKind::HaProxyThatRepeats, "POST", 4);
    check_repeats(HopKind::HaProxyThatRepeats, "DELETE", 4);
    check_repeats(HopKind::Go, "POST", 2);
    check_repeats(HopKind::Go, "DELETE", 2);
}
