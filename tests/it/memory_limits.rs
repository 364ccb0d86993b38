//! All limits of a small container reached at once: idle clients, calls in flight with their bodies,
//! answers that are kept, and replays whose clients are slow to read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::memory::Contained;
use crate::support::{
    Act, Backend, Conn, Gate, Request, Response, Setup, answer, at_once, eventually,
};

/// Clients that stay connected after a call. The memory of any more is counted in `buffered`.
const IDLE: usize = 500;
/// Calls at once; more than `in_flight` and `buffered` let through.
const CALLS: usize = 250;
/// Bytes of a call's body: all that pass fill `buffered`.
const BODY: usize = 90_000;

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"text":"{}"}}"#, "x".repeat(BODY)))
}

/// A call was executed, answered as before, or refused for load, and nothing else.
#[track_caller]
fn check(reply: &Response) {
    let (status, disposition, error) = reply.summary();
    let expected = match (status, error.as_str()) {
        (200, "") => ["executed", "replayed"].contains(&disposition.as_str()),
        // The answer of the first call found no room, and was given without being kept.
        (409, "response-not-retained") | (503, "overloaded") => disposition == "rejected",
        _ => false,
    };
    assert!(expected, "{status} {disposition} {error}");
}

#[test]
fn all_limits_at_once_fit_into_a_small_container() {
    let backend = Backend::start();
    backend.always(answer(200, "{}"));
    let contained = Contained::start(&Setup::before(&backend));
    let gateway = &contained.gateway;
    let addr = gateway.addr;
    let idle: Vec<Conn> = (0..IDLE)
        .map(|number| {
            let mut client = Request::redeem(&format!("idle-{number}"), "{}").begin(addr);
            client.read().is(200, "executed", "");
            client
        })
        .collect();
    for (round, size) in [100_000, 1_000_000, 50_000].into_iter().enumerate() {
        let (gate, before) = (Gate::default(), backend.calls());
        backend.always(Act::whole(200, &[], &vec![b'y'; size]).after(&gate));
        let key = |number: usize| format!("k-{round}-{number}");
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| {
            let calls = scope.spawn(|| {
                at_once(CALLS, |number| {
                    check(&redeem(&key(number)).send(addr));
                    answered.fetch_add(1, Ordering::Relaxed);
                });
            });
            eventually("every call is in flight or refused", || {
                let refused = answered.load(Ordering::Relaxed);
                (backend.calls() - before + refused >= CALLS).then_some(())
            });
            gate.open();
            calls.join().expect("every call is answered");
        });
        let mut slow: Vec<Conn> =
            (0..CALLS).map(|number| redeem(&key(number)).begin(addr)).collect();
        slow.iter_mut().for_each(|client| check(&client.read()));
    }
    drop(idle);
    contained.check_well(&backend);
}
