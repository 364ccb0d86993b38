//! Clients of other people with retry loops of their own: whatever is lost, each operation executes
//! at most once, each loop ends, and the caller learns of a lost answer before a till gives up.
//!
//! The rows of each client are those of the table in `docs/clients.md`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use crate::servers::{Hop, HopKind};
use crate::support::programs::{Call, LastAnswer, Program};
use crate::support::relay::{Attempt, Delivery, Relay};
use crate::support::{
    Act, Backend, Gate, Gateway, Request, Response, Seen, Setup, answer, at_once, eventually,
};

/// The time after which the reference client of a till gives up.
const TILL_GIVES_UP: Duration = Duration::from_secs(7);

/// The faults, each the last segment of a path. Those that begin with `front` lose the answer to
/// the first attempt between gateway and client; the others are the backend's.
const FAULTS: [&str; 14] = [
    "none",
    "front-closes",
    "front-resets",
    "front-is-cut",
    "front-is-silent",
    "closes",
    "resets",
    "is-cut",
    "is-silent",
    "conflict",
    "broken",
    "limited-once",
    "limited",
    "reused",
];

/// Every client, with the profile that it is made for.
const PROGRAMS: [(Program, &str); 6] = [
    (Program::Curl, "ietf"),
    (Program::CurlAllErrors, "ietf"),
    (Program::Requests, "ietf"),
    (Program::Go, "ietf"),
    (Program::StripePython, "stripe"),
    (Program::StripeNode, "stripe"),
];

const CURL: [&str; 14] = [
    "none: 1 × 200 executed",
    "front-closes: 1 × error",
    "front-resets: 1 × error",
    "front-is-cut: 1 × error",
    "front-is-silent: 2 × 200 replayed",
    "closes: 2 × 409 unknown",
    "resets: 2 × 409 unknown",
    "is-cut: 2 × 409 unknown",
    "is-silent: 2 × 409 unknown",
    "conflict: 1 × 409 unknown",
    "broken: 2 × 409 unknown",
    "limited-once: 2 × 200 executed",
    "limited: 4 × 429 not-executed",
    "reused: 1 × 422 rejected",
];

const CURL_ALL_ERRORS: [&str; 14] = [
    "none: 1 × 200 executed",
    "front-closes: 2 × 200 replayed",
    "front-resets: 2 × 200 replayed",
    "front-is-cut: 2 × 200 replayed",
    "front-is-silent: 2 × 200 replayed",
    "closes: 3 × 409 unknown",
    "resets: 3 × 409 unknown",
    "is-cut: 3 × 409 unknown",
    "is-silent: 3 × 409 unknown",
    "conflict: 3 × 409 unknown",
    "broken: 3 × 409 unknown",
    "limited-once: 2 × 200 executed",
    "limited: 3 × 429 not-executed",
    "reused: 3 × 422 rejected",
];

const REQUESTS: [&str; 14] = [
    "none: 1 × 200 executed",
    "front-closes: 2 × 200 replayed",
    "front-resets: 2 × 200 replayed",
    "front-is-cut: 1 × error",
    "front-is-silent: 2 × 200 replayed",
    "closes: 4 × 409 unknown",
    "resets: 4 × 409 unknown",
    "is-cut: 4 × 409 unknown",
    "is-silent: 4 × 409 unknown",
    "conflict: 4 × 409 unknown",
    "broken: 4 × 409 unknown",
    "limited-once: 2 × 200 executed",
    "limited: 4 × 429 not-executed",
    "reused: 1 × 422 rejected",
];

const GO: [&str; 14] = [
    "none: 1 × 200 executed",
    "front-closes: 2 × 200 replayed",
    "front-resets: 2 × 200 replayed",
    "front-is-cut: 2 × 200 replayed",
    "front-is-silent: 2 × 200 replayed",
    "closes: 1 × 502 unknown",
    "resets: 1 × 502 unknown",
    "is-cut: 1 × 502 unknown",
    "is-silent: 1 × 504 unknown",
    "conflict: 1 × 409 unknown",
    "broken: 1 × 500 unknown",
    "limited-once: 2 × 200 executed",
    "limited: 4 × 429 not-executed",
    "reused: 1 × 422 rejected",
];

/// The loops of `docs/clients.md` for fetch, Java, C# and PHP, which repeat the same answers.
pub(crate) const RECIPES: [&str; 14] = GO;

/// Both of Stripe's libraries: `Stripe-Should-Retry` ends their loops where no repetition helps.
const STRIPE: [&str; 14] = [
    "none: 1 × 200 executed",
    "front-closes: 2 × 200 replayed",
    "front-resets: 2 × 200 replayed",
    "front-is-cut: 1 × error",
    "front-is-silent: 2 × 200 replayed",
    "closes: 1 × 502 unknown",
    "resets: 1 × 502 unknown",
    "is-cut: 1 × 502 unknown",
    "is-silent: 1 × 504 unknown",
    "conflict: 1 × 409 unknown",
    "broken: 2 × 500 replayed",
    "limited-once: 2 × 200 executed",
    "limited: 4 × 429 not-executed",
    "reused: 1 × 400 rejected",
];

/// The columns of the table in the document.
const TABLE: [[&str; 14]; 7] = [CURL, CURL_ALL_ERRORS, REQUESTS, GO, RECIPES, STRIPE, STRIPE];

fn path(fault: &str) -> String {
    format!("/v1/{fault}")
}

/// The fault that a target such as `/v1/closes?n=1` names.
fn fault(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

/// A backend that does with a request what its path says.
pub(crate) fn backend_with_faults() -> Backend {
    let limited_before = Mutex::new(BTreeSet::new());
    Backend::scripted(move |seen: &Seen| {
        let executed = answer(200, &format!(r#"{{"execution":{}}}"#, seen.number));
        let headers = [("content-type", "application/json"), ("retry-after", "1")];
        let limited =
            Act::whole(429, &headers, br#"{"error":{"message":"rate limit, not executed"}}"#);
        match fault(seen.target()) {
            "closes" => Act::close(),
            "resets" => Act::reset(),
            "is-cut" => Act::raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"execu")
                .then(Act::close()),
            "is-silent" => executed.after(&Gate::default()),
            "conflict" => answer(409, r#"{"error":{"message":"a conflict of the backend"}}"#),
            "broken" => answer(500, r#"{"error":{"message":"broken"}}"#),
            "limited-once" if limited_before.lock().unwrap().insert(seen.target().to_owned()) => {
                limited
            }
            "limited" => limited,
            _ => executed,
        }
    })
}

fn delivery(attempt: &Attempt) -> Delivery {
    match fault(attempt.seen.target()) {
        _ if attempt.nth > 1 => Delivery::Whole,
        "front-closes" => Delivery::Closed,
        "front-resets" => Delivery::Reset,
        "front-is-cut" => Delivery::Cut,
        "front-is-silent" => Delivery::Silent,
        _ => Delivery::Whole,
    }
}

/// Client, hop, relay that loses answers, gateway, hop, backend with faults.
pub(crate) struct Chain {
    pub(crate) backend: Backend,
    pub(crate) gateway: Gateway,
    pub(crate) relay: Relay,
    /// Before and behind.
    hops: Option<(Hop, Hop)>,
}

impl Chain {
    /// Starts all of it, the hops where there is a kind for them.
    pub(crate) fn start(profile: &str, hops: Option<HopKind>) -> Self {
        let backend = backend_with_faults();
        let behind = hops.map(|kind| Hop::before(backend.addr(), kind));
        let mut route = format!(
            "name = \"sale\"\nmethods = [\"POST\", \"DELETE\"]\npath = \"/v1/{{fault}}\"\n\
             profile = \"{profile}\""
        );
        let mut setup = Setup::before(&backend).upstream("timeout = \"1s\"");
        if let Some(behind) = &behind {
            // A hop's own 502 and 504 stand for a lost answer; the profile `stripe` takes them for
            // the backend's final answers.
            route.push_str("\noutcome.unknown = [408, 409, 502, 503, 504]");
            setup = setup.replacing(backend.addr().to_string(), behind.addr().to_string());
        }
        let other_name = "name = \"other\"\nmethods = [\"POST\", \"DELETE\"]\n\
             path = \"/v2/{fault}\"\nkey.header = \"paypal-request-id\"";
        let gateway = setup.route(&route).route(other_name).start();
        let relay = Relay::before(gateway.addr, delivery);
        let before = hops.map(|kind| Hop::before(relay.addr(), kind));
        Self { backend, gateway, hops: before.zip(behind), relay }
    }

    /// Where its clients connect.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.hops.as_ref().map_or(self.relay.addr(), |(before, _)| before.addr())
    }
}

fn call(path: &str) -> Call {
    let key = format!("sale-{}", fault(path));
    Call { path: path.to_owned(), key, first: Some("/v1/first".to_owned()) }
}

/// The very bytes of an earlier attempt, sent once more.
#[track_caller]
fn repeat(seen: &Seen, to: SocketAddr) -> Response {
    let mut request = Request::exactly(&seen.line);
    for (name, value) in seen.headers.iter().filter(|(name, _)| name != "content-length") {
        request = request.header(name, value);
    }
    request.body(&seen.body).send(to)
}

/// Makes a call of `program` for each fault. Gives a line for each: attempts, and the answer that
/// the caller sees in the end.
#[track_caller]
pub(crate) fn check(program: Program, profile: &str, hops: Option<HopKind>) -> Vec<String> {
    let chain = Chain::start(profile, hops);
    let another = Request::new("POST", &path("reused")).key("sale-reused").json("{}");
    program.with_credential(another).send(chain.gateway.addr).is(200, "executed", "");

    let calls: Vec<_> = FAULTS.iter().map(|fault| call(&path(fault))).collect();
    let results = program.call(chain.addr(), &calls);

    let mut rows = Vec::new();
    for fault in FAULTS {
        let last = &results[&path(fault)];
        let attempts = chain.relay.attempts(&path(fault));
        check_last(fault, profile, last);
        check_executions(&chain, fault, profile, &attempts);
        rows.push(format!("{fault}: {} × {}", attempts.len(), last.in_short()));
    }
    rows
}

/// Asserts that the caller's last answer is true for the fault, and came in time.
#[track_caller]
fn check_last(fault: &str, profile: &str, last: &LastAnswer) {
    let expected: &[&str] = match fault {
        "none" => &["200 executed"],
        // Not every client repeats an attempt whose answer has begun.
        _ if fault.starts_with("front") => &["200 replayed", "error"],
        "limited-once" => &["200 executed", "429 not-executed"],
        "limited" => &["429 not-executed"],
        "reused" => &["422 rejected", "400 rejected"],
        "broken" if profile == "stripe" => &["500 executed", "500 replayed"],
        "is-silent" => &["504 unknown", "409 unknown"],
        "conflict" => &["409 unknown"],
        "broken" => &["500 unknown", "409 unknown"],
        // A proxy behind the gateway answers with a page, which Stripe's libraries cannot read: they
        // show no headers of it, or no status either. They obey `Stripe-Should-Retry: false`.
        _ if profile == "stripe" => &["502 unknown", "409 unknown", "502", "error"],
        _ => &["502 unknown", "409 unknown"],
    };
    assert!(expected.contains(&last.in_short().as_str()), "{fault}: {last:?}");
    if last.error == "outcome-unknown" {
        assert!(last.text.contains("not known"), "{fault}: no sentence to show: {last:?}");
    }
    assert!(last.took < TILL_GIVES_UP, "{fault}: {last:?}");
}

/// Asserts that the operation executed at most once, and that the same key once more, as after a
/// second click, adds no execution.
#[track_caller]
fn check_executions(chain: &Chain, fault: &str, profile: &str, attempts: &[Seen]) {
    let target = path(fault);
    let calls = || chain.backend.calls_to(&target);
    // The answer to the first call of this one says that nothing was executed.
    let refused = usize::from(fault == "limited-once");
    if fault == "limited" {
        assert_eq!(calls(), attempts.len(), "each attempt asks the backend, none executes");
        return;
    }
    let before = calls();
    assert!(before - refused <= 1, "{fault}: {before} calls");
    let later = repeat(attempts.last().expect("an attempt"), chain.gateway.addr);
    match fault {
        "limited-once" if before == refused => later.is(200, "executed", ""),
        "reused" => later.is(later.status, "rejected", "key-reused"),
        "broken" if profile == "stripe" => later.is(500, "replayed", ""),
        "closes" | "resets" | "is-cut" | "is-silent" | "conflict" | "broken" => {
            later.is(409, "unknown", "outcome-unknown")
        }
        _ => later.is(200, "replayed", ""),
    };
    assert_eq!(calls() - refused, 1, "{fault}: executed twice, or never");
}

#[test]
fn curl_with_retry() {
    assert_eq!(check(Program::Curl, "ietf", None), CURL);
}

#[test]
fn curl_with_retry_of_all_errors() {
    assert_eq!(check(Program::CurlAllErrors, "ietf", None), CURL_ALL_ERRORS);
}

#[test]
fn requests_with_urllib3_retry() {
    assert_eq!(check(Program::Requests, "ietf", None), REQUESTS);
}

#[test]
fn go_with_a_loop() {
    assert_eq!(check(Program::Go, "ietf", None), GO);
}

#[test]
fn stripe_for_python() {
    assert_eq!(check(Program::StripePython, "stripe", None), STRIPE);
}

#[test]
fn stripe_for_node() {
    assert_eq!(check(Program::StripeNode, "stripe", None), STRIPE);
}

#[test]
fn the_table_in_the_documents_is_what_is_measured() {
    let page = include_str!("../../docs/clients.md");
    for (number, fault) in FAULTS.iter().enumerate() {
        let begin = format!("| `{fault}`");
        let line = page.lines().find(|line| line.starts_with(&begin)).expect("a row");
        let cells = line.split('|').skip(2).map(str::trim);
        for (cell, rows) in cells.zip(TABLE) {
            assert_eq!(format!("{fault}: {cell}"), rows[number]);
        }
    }
}

/// The call takes longer than any client waits: its second attempt meets it in flight, and a later
/// one gets its answer.
#[test]
fn clients_that_give_up_early_get_the_answer_of_the_call_in_flight() {
    check_in_flight(&PROGRAMS);
}

/// Makes a call by each program at once, which the backend answers after its second attempt.
#[track_caller]
pub(crate) fn check_in_flight(programs: &[(Program, &str)]) {
    let gates: Vec<Gate> = programs.iter().map(|_| Gate::default()).collect();
    let backend_gates = gates.clone();
    let index = |target: &str| fault(target).parse::<usize>().ok();
    let backend = Backend::scripted(move |seen: &Seen| {
        let executed = answer(200, r#"{"executed":true}"#);
        match index(seen.target()) {
            Some(index) => executed.after(&backend_gates[index]),
            None => executed,
        }
    });
    let route = |profile: &str| {
        format!(
            "name = \"{profile}\"\nmethods = [\"POST\"]\npath = \"/{profile}/{{index}}\"\n\
             profile = \"{profile}\"\nduplicates.wait = \"0s\""
        )
    };
    let gateway = Setup::before(&backend).route(&route("ietf")).route(&route("stripe")).start();
    let relay = Relay::before(gateway.addr, move |attempt: &Attempt| {
        if let (2, Some(index)) = (attempt.nth, index(attempt.seen.target())) {
            attempt.answer.is(409, "in-progress", "request-in-progress");
            gates[index].open();
        }
        Delivery::Whole
    });
    at_once(programs.len(), |index| {
        let (program, profile) = programs[index];
        let target = format!("/{profile}/{index}");
        let call = Call { path: target.clone(), key: format!("slow-{index}"), first: None };
        let last = &program.call(relay.addr(), &[call])[&target];
        let attempts = relay.attempts(&target);
        match program {
            // It does not repeat a 409.
            Program::Curl => assert_eq!(last.in_short(), "409 in-progress"),
            _ => assert_eq!(last.in_short(), "200 replayed", "{program:?}: {last:?}"),
        }
        assert!(attempts.len() <= 4 && last.took < TILL_GIVES_UP, "{program:?}: {last:?}");
        eventually("the call ends", || {
            let later = repeat(&attempts[0], gateway.addr);
            (later.disposition() == "replayed").then_some(())
        });
        assert_eq!(backend.calls_to(&target), 1, "{program:?}");
    });
}
