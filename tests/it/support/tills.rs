//! Tills that retry every key over all replicas until its fate is known, whatever fails meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::rng::Rng;
use super::{Backend, Request, Response, answer, eventually};

/// Where the replicas are now.
pub(crate) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// What a till knows of a key.
#[derive(Debug)]
enum Fate {
    /// It was answered; the answer stands.
    Final(Response),
    /// It was answered, and the store did not have it yet: that answer, or nobody knows.
    Unrecorded(Response),
    /// The till was told that nobody knows; a late answer may settle it.
    Unknown,
}

/// What came of all keys.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) succeeded: usize,
    pub(crate) unknown: usize,
}

struct Till {
    name: usize,
    rng: Rng,
    keys: usize,
    open: Option<String>,
    known: Vec<(String, Fate)>,
}

/// Tills at work.
pub(crate) struct Tills {
    tills: Vec<Till>,
}

/// A backend that says which execution it was, after a few milliseconds of work.
pub(crate) fn working_backend() -> Backend {
    Backend::scripted(|seen| {
        // Not to wait for anything: work takes its time.
        // The backend's own work, longer for some calls than for others.
        std::thread::sleep(std::time::Duration::from_millis(seen.number as u64 % 7));
        answer(200, &format!(r#"{{"transaction":{}}}"#, seen.number))
    })
}

/// Asserts that no body arrived twice; gives how many arrived.
#[track_caller]
pub(crate) fn none_twice(backend: &Backend) -> usize {
    let executions = backend.executions();
    let twice: Vec<_> = executions.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "executed more than once: {twice:?}");
    executions.len()
}

impl Tills {
    pub(crate) fn new(count: usize, rng: &mut Rng) -> Self {
        let till = |name| Till { name, rng: rng.fork(), keys: 0, open: None, known: Vec::new() };
        Self { tills: (0..count).map(till).collect() }
    }

    /// Works at the replicas while `meanwhile` runs.
    pub(crate) fn work(&mut self, replicas: &Addresses, meanwhile: impl FnOnce()) {
        let ended = AtomicBool::new(false);
        // Also when `meanwhile` panics: the tills must not wait for ever then.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        std::thread::scope(|scope| {
            for till in &mut self.tills {
                let ended = &ended;
                scope.spawn(move || {
                    // A till that fails ends the trial.
                    let failed = End(ended);
                    while !ended.load(Ordering::SeqCst) {
                        till.step(replicas);
                    }
                    drop(failed);
                });
            }
            let end = End(&ended);
            meanwhile();
            drop(end);
        });
    }

    /// Asks every replica for every key, once nothing fails any more.
    pub(crate) fn verify(mut self, replicas: &Addresses, backend: &Backend) -> Tally {
        let replicas = replicas.lock().unwrap().clone();
        std::thread::scope(|scope| {
            for till in &mut self.tills {
                let replicas = &replicas;
                scope.spawn(move || till.verify(replicas));
            }
        });
        let executed = none_twice(backend);
        let executions = backend.executions();
        let mut tally = Tally::default();
        for (key, fate) in self.tills.iter().flat_map(|till| &till.known) {
            match fate {
                Fate::Final(_) | Fate::Unrecorded(_) => {
                    assert!(executions.contains_key(&body(key)), "{key} never ran");
                    tally.succeeded += 1;
                }
                Fate::Unknown => tally.unknown += 1,
            }
        }
        println!("{tally:?}, {executed} executions");
        assert!(tally.succeeded > 0, "the trial saw nothing");
        tally
    }
}

fn body(key: &str) -> String {
    format!(r#"{{"qr":"{key}"}}"#)
}

fn request(key: &str) -> Request {
    Request::redeem(key, &body(key))
}

impl Till {
    fn step(&mut self, replicas: &Addresses) {
        let key = self.open.take().unwrap_or_else(|| {
            self.keys += 1;
            format!("till-{}-{}", self.name, self.keys)
        });
        let to = self.draw(replicas);
        match request(&key).try_send(to).ok().and_then(|reply| fate(&key, &reply)) {
            Some(fate) => self.known.push((key, fate)),
            None => self.open = Some(key),
        }
        if !self.known.is_empty() && self.rng.below(4) == 0 {
            let at = usize::try_from(self.rng.below(self.known.len() as u64)).unwrap();
            let to = self.draw(replicas);
            let (key, known) = &mut self.known[at];
            if let Ok(reply) = request(key).try_send(to) {
                known.meet(key, &reply);
            }
        }
    }

    fn draw(&mut self, replicas: &Addresses) -> SocketAddr {
        let replicas = replicas.lock().unwrap();
        let at = self.rng.below(replicas.len() as u64);
        replicas[usize::try_from(at).unwrap()]
    }

    fn verify(&mut self, replicas: &[SocketAddr]) {
        if let Some(key) = self.open.take() {
            let fate = eventually("the fate of the last key", || {
                fate(&key, &request(&key).send(replicas[0]))
            });
            self.known.push((key, fate));
        }
        for (key, known) in &mut self.known {
            for replica in replicas {
                eventually("every key has a fate on every replica", || {
                    known.meet(key, &request(key).send(*replica)).then_some(())
                });
            }
        }
    }
}

/// What an answer says about the key; `None`: try again.
#[track_caller]
fn fate(key: &str, reply: &Response) -> Option<Fate> {
    match (reply.status, reply.disposition().as_str(), reply.error().as_str()) {
        (200, "executed" | "replayed", "") => Some(Fate::Final(reply.kept())),
        (200, "unrecorded", "") => Some(Fate::Unrecorded(reply.kept())),
        (409 | 502 | 504, "unknown", "outcome-unknown") => Some(Fate::Unknown),
        (409, "in-progress", "request-in-progress") => None,
        (503, "rejected", "store-unavailable") => None,
        // Nothing was sent: the lease ended while a connection was made, or the gateway stood still.
        (502, "not-executed", "upstream-unreachable") => None,
        _ => panic!("{key}: {reply:?}"),
    }
}

impl Fate {
    /// Another answer for the same key: it may not contradict. Whether it says a fate at all.
    #[track_caller]
    fn meet(&mut self, key: &str, reply: &Response) -> bool {
        let Some(now) = fate(key, reply) else { return false };
        // A claim that was withdrawn may have been unknown for a moment: then it is the first to run.
        let ran = reply.disposition() == "executed" && !matches!(self, Self::Unknown);
        assert!(!ran, "{key} ran again: {reply:?}");
        match (&*self, &now) {
            (Self::Final(first) | Self::Unrecorded(first), Self::Final(again))
            | (Self::Unrecorded(first), Self::Unrecorded(again)) => {
                assert_eq!(first, again, "{key} has another answer");
            }
            (Self::Unrecorded(_) | Self::Unknown, Self::Unknown)
            | (Self::Unknown, Self::Final(_) | Self::Unrecorded(_)) => {}
            (Self::Final(_), Self::Unknown | Self::Unrecorded(_)) => {
                panic!("{key} was final and is not any more: {reply:?}")
            }
        }
        if matches!(now, Self::Final(_) | Self::Unrecorded(_)) {
            *self = now;
        }
        true
    }
}
