//! A small container: what does not fit is refused, and the process is never killed for it.
//!
//! The gateway runs in a control group of its own with a real limit. Where none can be made, because
//! the tests are not run by root or the groups are mounted read-only, its peak is held to the limit
//! instead, and that is printed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{
    Act, Backend, Conn, Gate, Gateway, Request, Setup, answer, at_once, eventually,
};

/// The memory of the container.
const LIMIT: u64 = 64 << 20;

/// A control group with a limit; removed when dropped.
#[derive(Debug)]
struct Group(PathBuf);

impl Group {
    /// A new group; `None`: none can be made here.
    fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("oncegate-test-{}-{number}", std::process::id());
        let roots = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
        ];
        roots.iter().find_map(|(root, limit, swap)| {
            let group = Self(PathBuf::from(root).join(&name));
            std::fs::create_dir(&group.0).ok()?;
            std::fs::write(group.0.join(limit), LIMIT.to_string()).ok()?;
            let without_swap = if *swap == "memory.swap.max" { 0 } else { LIMIT };
            let _ = std::fs::write(group.0.join(swap), without_swap.to_string());
            Some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A gateway in a container, which outlives it.
pub(crate) struct Contained {
    pub(crate) gateway: Gateway,
    group: Option<Group>,
}

impl Contained {
    pub(crate) fn start(setup: &Setup) -> Self {
        let group = Group::new();
        let setup = match &group {
            Some(group) => {
                setup.clone().shell(format!("echo $$ > {}/cgroup.procs", group.0.display()))
            }
            None => {
                println!("no control group can be made here: the peak of the memory is measured");
                setup.clone().limits("in_flight = 170\nbuffered = \"16MiB\"")
            }
        };
        Self { gateway: setup.start(), group }
    }

    /// The gateway is alive and works.
    #[track_caller]
    pub(crate) fn check_well(mut self, backend: &Backend) {
        backend.always(answer(200, "{}"));
        eventually("there is room again", || {
            let reply = Request::redeem("afterwards", "{}").send(self.gateway.addr);
            (reply.status == 200).then_some(())
        });
        if self.group.is_none() {
            let peak = self.gateway.peak_memory();
            assert!(peak < LIMIT, "{} KiB", peak >> 10);
        }
        self.gateway.stop();
    }
}

/// Counts answers by status and disposition; every one is an execution or a refusal for load.
#[track_caller]
fn counted(reply: impl IntoIterator<Item = (u16, String, String)>) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for (status, disposition, error) in reply {
        let expected = match status {
            200 => disposition == "executed" && error.is_empty(),
            503 => disposition == "rejected" && error == "overloaded",
            _ => false,
        };
        assert!(expected, "{status} {disposition} {error}");
        *counts.entry(status).or_default() += 1;
    }
    counts
}

#[test]
fn the_limits_follow_the_memory_of_the_container() {
    let backend = Backend::start();
    let contained = Contained::start(&Setup::before(&backend));
    if contained.group.is_some() {
        let gateway = &contained.gateway;
        let start = gateway.logs(&["oncegate has started", "memory=67108864"]);
        for word in ["connections=2048", "in_flight=170", "buffered=16777216"] {
            assert!(start.contains(word), "{word}: {start}");
        }
        let environment = gateway.environment();
        assert!(environment.contains("MIMALLOC_PURGE_DELAY=0"), "freed memory is returned at once");
        gateway.logs(&["WARN", "`connections` is lowered", "memory=67108864"]);
        gateway.logs(&["WARN", "`in_flight` is lowered", "memory=67108864"]);
    }
    contained.check_well(&backend);
}

#[test]
fn a_thousand_small_requests_at_once_fit_into_a_small_container() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, r#"{"ok":true}"#).after(&gate));
    let contained = Contained::start(&Setup::before(&backend));
    let addr = contained.gateway.addr;
    let mut clients: Vec<Conn> = (0..1000)
        .map(|number| {
            let body = format!(r#"{{"qr":"rsg:{number}","amount":{number}}}"#);
            Request::redeem(&format!("k-{number}"), &body).begin(addr)
        })
        .collect();
    // All claims that fit are in flight at the same time.
    backend.wait_calls(170);
    gate.open();
    let counts = counted(clients.iter_mut().map(|client| client.read().summary()));
    assert!(counts.get(&200).copied().unwrap_or(0) >= 170, "{counts:?}");
    drop(clients);
    contained.check_well(&backend);
}

#[test]
fn twenty_large_bodies_at_once_fit_into_a_small_container() {
    // As a text, and as many small values, each of which costs more memory than its bytes.
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(1_000_000));
    let values = format!("[{}0]", "1,".repeat(500_000));
    let large = "y".repeat(1_000_000);
    for body in [text, values] {
        let backend = Backend::start();
        backend.always(Act::whole(200, &[], large.as_bytes()));
        let contained = Contained::start(&Setup::before(&backend));
        let addr = contained.gateway.addr;
        for round in 0..3 {
            let reply = at_once(20, |number| {
                Request::redeem(&format!("k-{round}-{number}"), &body).send(addr).summary()
            });
            let counts = counted(reply);
            assert!(counts.contains_key(&200), "{counts:?}");
        }
        contained.check_well(&backend);
    }
}
