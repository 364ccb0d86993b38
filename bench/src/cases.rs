//! What is measured, against what, and what is wanted.

use crate::load::{Ask, Status};

/// Which server answers a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    NginxProxy,
    NginxCache,
    /// The cache over TLS, with HTTP/2.
    NginxTls,
    NginxNaive,
    HyperProxy,
    HyperReplay,
    /// A gateway with a store of this name. What was written into one goes on costing time when it is
    /// merged, so what writes most has stores of its own.
    Oncegate(&'static str),
}

/// Transport of the requests of a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Travel {
    Plain,
    Tls,
    Http2,
    /// Full handshakes, and nothing else.
    FullHandshake,
    /// Handshakes that resume a session, and nothing else.
    ResumedHandshake,
}

/// The store of all requests.
pub(crate) const REQUESTS: &str = "store";
/// The store of the gateway with TLS.
pub(crate) const SECURE: &str = "secure";
const BATCHES: &str = "batches";
const FEW_BATCHES: &str = "few-batches";

/// How often the backend may be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Once for every request: otherwise something was answered or retried on the way.
    EveryTime,
    /// Never: otherwise it was no replay.
    Never,
}

/// A ratio that is wanted: this case's CPU at most so many times the reference's.
pub(crate) struct Wanted {
    pub(crate) reference: &'static str,
    pub(crate) at_most: f64,
}

/// One row of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) target: Target,
    pub(crate) ask: Ask,
    pub(crate) backend: Backend,
    pub(crate) status: Status,
    pub(crate) wanted: Option<Wanted>,
    /// Over how many connections, if not over as many as everything else.
    pub(crate) connections: Option<usize>,
    pub(crate) wire: Travel,
}

const fn peer(name: &'static str, target: Target, ask: Ask, backend: Backend) -> Case {
    Case {
        name,
        target,
        ask,
        backend,
        status: Status::None,
        wanted: None,
        connections: None,
        wire: Travel::Plain,
    }
}

const fn ours(
    name: &'static str,
    ask: Ask,
    backend: Backend,
    status: Status,
    reference: &'static str,
    at_most: f64,
) -> Case {
    let wanted = Some(Wanted { reference, at_most });
    Case {
        name,
        target: Target::Oncegate(REQUESTS),
        ask,
        backend,
        status,
        wanted,
        connections: None,
        wire: Travel::Plain,
    }
}

/// A case of the gateway with TLS.
const fn secure(case: Case, wire: Travel) -> Case {
    Case { target: Target::Oncegate(SECURE), wire, ..case }
}

/// At least 0.9 of the reference's handshakes in a second of CPU time.
const fn handshakes(name: &'static str, reference: &'static str) -> Case {
    ours(name, Ask::Get, Backend::Never, Status::None, reference, 1.11)
}

/// As many tills as one gateway commonly serves at the same moment.
const FEW: Option<usize> = Some(8);

const EXECUTED: Status = Status::Is("executed");
const REPLAYED: Status = Status::Is("replayed");
const PROXY_POST: &str = "nginx, plain proxy, POST";
const PROXY_GET: &str = "nginx, plain proxy, GET";
const REPLAY: &str = "oncegate, replay";
const FRESH_LARGE: &str = "oncegate, fresh, body of a batch's size";
const FRESH_LARGE_FEW: &str = "oncegate, fresh, body of a batch's size, 8 connections";
const NGINX_FULL: &str = "nginx, TLS handshakes, full";
const NGINX_RESUMED: &str = "nginx, TLS handshakes, resumed";
const NGINX_HTTP2: &str = "nginx, cache hit, GET, HTTP/2";
const CACHE_GET: &str = "nginx, cache hit, GET";

/// Every case; the order is the order of measuring and of the table.
pub(crate) const CASES: &[Case] = &[
    peer(PROXY_POST, Target::NginxProxy, Ask::Same, Backend::EveryTime),
    ours("oncegate, fresh, durable", Ask::Fresh, Backend::EveryTime, EXECUTED, PROXY_POST, 2.5),
    peer("bare hyper proxy, POST", Target::HyperProxy, Ask::Same, Backend::EveryTime),
    peer(
        "nginx + Lua + Redis, fresh, not durable",
        Target::NginxNaive,
        Ask::Fresh,
        Backend::EveryTime,
    ),
    peer(CACHE_GET, Target::NginxCache, Ask::Get, Backend::Never),
    peer("nginx, cache hit, POST by key", Target::NginxCache, Ask::Same, Backend::Never),
    ours(REPLAY, Ask::Same, Backend::Never, REPLAYED, CACHE_GET, 0.6),
    peer("bare hyper replay from memory", Target::HyperReplay, Ask::Same, Backend::Never),
    peer("nginx + Lua + Redis, replay", Target::NginxNaive, Ask::Same, Backend::Never),
    peer(PROXY_GET, Target::NginxProxy, Ask::Get, Backend::EveryTime),
    ours("oncegate, pass-through, GET", Ask::Get, Backend::EveryTime, Status::None, PROXY_GET, 1.2),
    peer("bare hyper proxy, GET", Target::HyperProxy, Ask::Get, Backend::EveryTime),
    Case {
        name: FRESH_LARGE,
        target: Target::Oncegate(REQUESTS),
        ask: Ask::FreshLarge,
        backend: Backend::EveryTime,
        status: EXECUTED,
        wanted: None,
        connections: None,
        wire: Travel::Plain,
    },
    Case {
        target: Target::Oncegate(BATCHES),
        ..ours(
            "oncegate, batch of 10, fresh",
            Ask::FreshBatch,
            Backend::EveryTime,
            EXECUTED,
            FRESH_LARGE,
            2.0,
        )
    },
    Case {
        name: FRESH_LARGE_FEW,
        target: Target::Oncegate(REQUESTS),
        ask: Ask::FreshLarge,
        backend: Backend::EveryTime,
        status: EXECUTED,
        wanted: None,
        connections: FEW,
        wire: Travel::Plain,
    },
    Case {
        target: Target::Oncegate(FEW_BATCHES),
        connections: FEW,
        ..ours(
            "oncegate, batch of 10, fresh, 8 connections",
            Ask::FreshBatch,
            Backend::EveryTime,
            EXECUTED,
            FRESH_LARGE_FEW,
            2.0,
        )
    },
    ours("oncegate, batch of 10, replay", Ask::SameBatch, Backend::Never, REPLAYED, REPLAY, 3.0),
    Case {
        wire: Travel::FullHandshake,
        ..peer(NGINX_FULL, Target::NginxTls, Ask::Get, Backend::Never)
    },
    secure(handshakes("oncegate, TLS handshakes, full", NGINX_FULL), Travel::FullHandshake),
    Case {
        wire: Travel::ResumedHandshake,
        ..peer(NGINX_RESUMED, Target::NginxTls, Ask::Get, Backend::Never)
    },
    secure(
        handshakes("oncegate, TLS handshakes, resumed", NGINX_RESUMED),
        Travel::ResumedHandshake,
    ),
    Case { wire: Travel::Http2, ..peer(NGINX_HTTP2, Target::NginxTls, Ask::Get, Backend::Never) },
    secure(
        ours("oncegate, replay, HTTP/2", Ask::Same, Backend::Never, REPLAYED, NGINX_HTTP2, 1.2),
        Travel::Http2,
    ),
    secure(
        ours(
            "oncegate, fresh, durable, TLS",
            Ask::Fresh,
            Backend::EveryTime,
            EXECUTED,
            "oncegate, fresh, durable",
            1.1,
        ),
        Travel::Tls,
    ),
];
