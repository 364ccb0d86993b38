//! The gateway's metrics.
//!
//! Every metric is registered once, here, under the name of the contract. Handles are resolved when
//! the configuration is loaded (`route` and `upstream`), so that a request only adds to counters.
//! Figures that exist anyway, such as the number of open connections, are set at each scrape.

mod exposition;
mod labels;
mod process;
mod route;
mod store;
mod upstream;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

pub(crate) use self::exposition::Exposition;
pub(crate) use self::labels::{ReloadResult, StoreOperation};
pub(crate) use self::route::RouteMetrics;
pub(crate) use self::store::{StoreMetrics, record_commit};
pub(crate) use self::upstream::UpstreamMetrics;

use self::labels::{ALARM_REASONS, Buckets, HistogramFamily, Labels, UNMATCHED, outcomes};
use self::process::ProcessCollector;
use crate::clock::{self, Timestamp};

type CounterFamily<const N: usize> = Family<Labels<N>, Counter>;
type FloatGauge = Gauge<f64, AtomicU64>;

/// All metrics of a gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: CounterFamily<2>,
    prevented: CounterFamily<1>,
    observed: CounterFamily<2>,
    replays: CounterFamily<1>,
    other_caller: CounterFamily<1>,
    settled: CounterFamily<3>,
    alarms: CounterFamily<2>,
    reloads: CounterFamily<1>,
    request_seconds: HistogramFamily<1>,
    upstream_seconds: HistogramFamily<1>,
    store: Arc<StoreMetrics>,
    store_created: FloatGauge,
    certificate_expiry: Family<Labels<0>, FloatGauge>,
    memory_limit: Family<Labels<0>, Gauge>,
    connections: Gauge,
    in_flight: Gauge,
    waiters: Gauge,
    buffered: Gauge,
    pool: Family<Labels<1>, Gauge>,
    unknown: Gauge,
    unknown_oldest: FloatGauge,
    /// The metrics of each route, by name.
    routes: Mutex<BTreeMap<String, Arc<RouteMetrics>>>,
}

/// Figures of the gateway at the time of a scrape.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    /// Requests in flight, batches included.
    pub(crate) in_flight: usize,
    /// Duplicates that wait for a call in flight.
    pub(crate) waiters: usize,
    /// Bytes of all buffered bodies.
    pub(crate) buffered: u64,
    /// Connections to each upstream.
    pub(crate) pools: Vec<(String, usize)>,
}

/// Sums over all routes since the start of the process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Requests of any outcome.
    pub(crate) requests: u64,
    /// Duplicates answered without a call, and items not sent again.
    pub(crate) prevented: u64,
}

impl Totals {
    /// The part of these sums that came after `before`. Sums shrink when a route is removed.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            prevented: self.prevented.saturating_sub(before.prevented),
        }
    }
}

/// The unknown outcomes in the whole store.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownFigures {
    /// Records with an unknown outcome; those that only wait for a decision of the backend are not
    /// counted.
    pub(crate) records: u64,
    /// Beginning of the oldest of them.
    pub(crate) oldest: Option<Timestamp>,
}

/// An open connection of a client, counted until dropped.
#[derive(Debug)]
pub(crate) struct CountedConnection(Gauge);

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers all metrics.
    pub(crate) fn new() -> Arc<Self> {
        let mut registry = Registry::default();
        let to = &mut registry;
        let requests = register(to, "requests", "Requests by route and outcome");
        let prevented = register(
            to,
            "prevented",
            "Duplicates that were answered without a call to the backend, and items not sent again",
        );
        let observed = register(
            to,
            "observed",
            "Requests of observed routes by the outcome that request mode would have given",
        );
        let replays = register(to, "replays", "Duplicates answered from the record");
        let other_caller = register(
            to,
            "other_caller",
            "Requests whose key and content another caller has used within an hour",
        );
        let settled =
            register(to, "settled", "Unknown outcomes settled, by whom or what and as what");
        let alarms = register(to, "alarms", "Outcomes that a person has to look at, by reason");
        let reloads: CounterFamily<1> =
            register(to, "reloads", "Reloads of the configuration by result");
        for result in ReloadResult::ALL {
            drop(reloads.get_or_create(&[("result", result.as_str().to_owned())]));
        }
        let request_seconds = Family::new_with_constructor(Buckets::Call);
        let help = "Time from a request's head to the head of its answer, in seconds";
        put(to, "request_seconds", help, &request_seconds);
        let upstream_seconds = Family::new_with_constructor(Buckets::Call);
        let help = "Time of a call until the head of its answer or its loss, in seconds";
        put(to, "upstream_seconds", help, &upstream_seconds);
        let store = Arc::new(store_metrics(to));
        let help = "Changes that the store makes durable with a single commit";
        put(to, "store_commit_batch", help, &store::commit_batch());
        let store_created =
            register(to, "store_created_timestamp_seconds", "Creation of the store");
        let certificate_expiry = register(
            to,
            "certificate_expiry_timestamp_seconds",
            "End of the validity of the listener's certificate",
        );
        let memory_limit = register(
            to,
            "memory_limit_bytes",
            "Limit of the memory of the process's control group; absent without a limit",
        );
        let connections = register(to, "connections", "Open connections of clients");
        let in_flight = register(to, "in_flight", "Requests in flight, batches included");
        let waiters = register(to, "waiters", "Duplicates that wait for a call in flight");
        let buffered = register(to, "buffered_bytes", "Bytes of all buffered bodies");
        let pool = register(to, "pool_connections", "Connections to an upstream");
        let unknown = register(
            to,
            "unknown_records",
            "Records with an unknown outcome in the whole store; take the maximum over replicas",
        );
        let unknown_oldest = register(
            to,
            "unknown_oldest_seconds",
            "Age of the oldest unknown outcome in the whole store, in seconds",
        );
        registry.register_collector(Box::new(ProcessCollector { started: clock::now() }));
        Arc::new(Self {
            registry,
            requests,
            prevented,
            observed,
            replays,
            other_caller,
            settled,
            alarms,
            reloads,
            request_seconds,
            upstream_seconds,
            store,
            store_created,
            certificate_expiry,
            memory_limit,
            connections,
            in_flight,
            waiters,
            buffered,
            pool,
            unknown,
            unknown_oldest,
            routes: Mutex::default(),
        })
    }

    /// The metrics of a route; those of an earlier configuration go on.
    pub(crate) fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut routes = self.lock_routes();
        let metrics = routes.entry(name.to_owned());
        metrics.or_insert_with(|| Arc::new(self.new_route(name))).clone()
    }

    fn lock_routes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<RouteMetrics>>> {
        // A panic under the lock cannot leave the map half changed.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metrics of each route, by name; unmatched requests have an empty name.
    pub(crate) fn routes(&self) -> Vec<(String, Arc<RouteMetrics>)> {
        let routes = self.lock_routes();
        routes.iter().map(|(name, metrics)| (name.clone(), metrics.clone())).collect()
    }

    /// Sums over all routes.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (_, route) in self.routes() {
            totals.requests += route.counts().map(|(_, count)| count).sum::<u64>();
            totals.prevented += route.prevented_count();
        }
        totals
    }

    fn new_route(&self, name: &str) -> RouteMetrics {
        let route = || ("route", name.to_owned());
        let requests = outcomes().into_iter().map(|outcome| {
            let labels = [route(), ("outcome", outcome.to_owned())];
            (outcome, self.requests.get_or_create_owned(&labels))
        });
        // The rise from zero of a counter that begins with its first alarm would be seen by nobody.
        for reason in ALARM_REASONS.into_iter().filter(|_| name != UNMATCHED) {
            let labels = [route(), ("reason", reason.to_owned())];
            drop(self.alarms.get_or_create(&labels));
        }
        RouteMetrics {
            requests: requests.collect(),
            prevented: self.prevented.get_or_create_owned(&[route()]),
            replays: self.replays.get_or_create_owned(&[route()]),
            other_caller: self.other_caller.get_or_create_owned(&[route()]),
            seconds: self.request_seconds.get_or_create_owned(&[route()]),
        }
    }

    /// The metrics of requests that no route took.
    pub(crate) fn unmatched(&self) -> Arc<RouteMetrics> {
        self.route(UNMATCHED)
    }

    /// The metrics of an upstream.
    pub(crate) fn upstream(&self, name: &str) -> UpstreamMetrics {
        let labels = [("upstream", name.to_owned())];
        UpstreamMetrics { seconds: self.upstream_seconds.get_or_create_owned(&labels) }
    }

    /// The metrics of the store.
    pub(crate) fn store(&self) -> Arc<StoreMetrics> {
        self.store.clone()
    }

    /// Counts an open connection until the returned value is dropped.
    pub(crate) fn connection(&self) -> CountedConnection {
        self.connections.inc();
        CountedConnection(self.connections.clone())
    }

    /// Removes the series of a route that is not configured any more.
    pub(crate) fn forget_route(&self, name: &str) {
        self.lock_routes().remove(name);
        let route = || ("route", name.to_owned());
        for outcome in outcomes() {
            self.requests.remove(&[route(), ("outcome", outcome.to_owned())]);
        }
        for family in [&self.prevented, &self.replays, &self.other_caller] {
            family.remove(&[route()]);
        }
        self.request_seconds.remove(&[route()]);
    }

    /// The counter of an observed route's requests with this outcome.
    pub(crate) fn observed(&self, route: &str, outcome: &'static str) -> Counter {
        let labels = [("route", route.to_owned()), ("outcome", outcome.to_owned())];
        self.observed.get_or_create_owned(&labels)
    }

    /// The requests of an observed route by outcome, without the outcomes of none.
    pub(crate) fn observed_counts(&self, route: &str) -> Vec<(&'static str, u64)> {
        let count = |outcome: &'static str| {
            let labels = [("route", route.to_owned()), ("outcome", outcome.to_owned())];
            Some((outcome, self.observed.get(&labels)?.get()))
        };
        outcomes().into_iter().filter_map(count).collect()
    }

    /// Counts a settled outcome: `by` is the kind of the decision (`operator`, `probe`, `resend`,
    /// …) and `how` its result (`executed`, `not-executed`).
    pub(crate) fn settled(&self, route: &str, by: &'static str, how: &'static str) {
        let labels = [("route", route.to_owned()), ("by", by.to_owned()), ("as", how.to_owned())];
        self.settled.get_or_create(&labels).inc();
    }

    /// Counts an alarm.
    pub(crate) fn alarm(&self, route: &str, reason: &'static str) {
        let labels = [("route", route.to_owned()), ("reason", reason.to_owned())];
        self.alarms.get_or_create(&labels).inc();
    }

    /// Counts a reload.
    pub(crate) fn reloaded(&self, result: ReloadResult) {
        self.reloads.get_or_create(&[("result", result.as_str().to_owned())]).inc();
    }

    /// Sets the end of the validity of the listener's certificate.
    pub(crate) fn certificate_expires(&self, at: Timestamp) {
        self.certificate_expiry.get_or_create(&[]).set(seconds(at));
    }

    /// Sets the limit of the process's memory.
    pub(crate) fn memory_limit(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.memory_limit.get_or_create(&[]).set(bytes);
    }

    /// Sets the creation of the store.
    pub(crate) fn store_created(&self, at: Timestamp) {
        self.store_created.set(seconds(at));
    }

    /// Writes all metrics, with the figures of the present moment.
    ///
    /// # Errors
    /// When a value cannot be written as a number.
    pub(crate) fn write(
        &self,
        form: Exposition,
        figures: &Figures,
        unknown: UnknownFigures,
        now: Timestamp,
    ) -> Result<String, std::fmt::Error> {
        self.in_flight.set(signed(figures.in_flight));
        self.waiters.set(signed(figures.waiters));
        self.buffered.set(i64::try_from(figures.buffered).unwrap_or(i64::MAX));
        for (name, connections) in &figures.pools {
            let labels = [("upstream", name.clone())];
            self.pool.get_or_create(&labels).set(signed(*connections));
        }
        self.unknown.set(i64::try_from(unknown.records).unwrap_or(i64::MAX));
        let age = unknown.oldest.map_or(0.0, |oldest| oldest.until(now).as_secs_f64());
        self.unknown_oldest.set(age);
        form.write(&self.registry)
    }
}

fn store_metrics(registry: &mut Registry) -> StoreMetrics {
    let seconds: HistogramFamily<1> = Family::new_with_constructor(Buckets::Store);
    put(registry, "store_seconds", "Time of an operation of the store, in seconds", &seconds);
    let errors: CounterFamily<1> =
        register(registry, "store_errors", "Operations of the store that failed");
    let operations = StoreOperation::ALL.map(|operation| {
        let labels = [("op", operation.as_str().to_owned())];
        (seconds.get_or_create_owned(&labels), errors.get_or_create_owned(&labels))
    });
    StoreMetrics { operations: operations.into() }
}

/// Registers a new metric as `oncegate_<name>`; of a counter, without its `_total`.
fn register<M: Metric + Default + Clone>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    put(registry, name, help, &metric);
    metric
}

fn put<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register(format!("oncegate_{name}"), help, metric.clone());
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}
