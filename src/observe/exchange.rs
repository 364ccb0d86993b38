//! The exchange that an event belongs to: each line of the log has its fields, at the cost of
//! changing one pointer when the exchange is polled. The fields are read only when a line is
//! written; a span of `tracing` would copy them for each request.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};

use super::line::LogLine;
use super::request_id::RequestId;
use super::traces::{ActiveTrace, SpanName};

/// The span of an exchange: the facts that its lines in the log have in common. Each is set when it
/// becomes known.
pub(crate) struct ExchangeSpan {
    request_id: OnceLock<RequestId>,
    route: OnceLock<Arc<RouteFields>>,
    record: OnceLock<[u8; 16]>,
    instance: OnceLock<uuid::Uuid>,
    outcome: OnceLock<&'static str>,
    items: AtomicUsize,
    store_micros: AtomicU64,
    upstream_micros: AtomicU64,
    received: AtomicU64,
    trace: OnceLock<Arc<ActiveTrace>>,
    /// Set when the call to the backend begins: what the store does afterwards is the completion.
    is_called: AtomicBool,
}

/// The names that a route gives to its lines.
#[derive(Debug)]
pub(crate) struct RouteFields {
    pub(crate) route: Arc<str>,
    pub(crate) upstream: Arc<str>,
}

impl fmt::Debug for ExchangeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeSpan").field("route", &self.route).finish_non_exhaustive()
    }
}

impl ExchangeSpan {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            request_id: OnceLock::new(),
            route: OnceLock::new(),
            record: OnceLock::new(),
            instance: OnceLock::new(),
            outcome: OnceLock::new(),
            items: AtomicUsize::new(0),
            store_micros: AtomicU64::new(0),
            upstream_micros: AtomicU64::new(0),
            received: AtomicU64::new(0),
            trace: OnceLock::new(),
            is_called: AtomicBool::new(false),
        })
    }

    /// The id of the exchange, made when first asked for.
    fn request_id(&self) -> &RequestId {
        self.request_id.get_or_init(|| RequestId::new(None))
    }

    /// Sets the id of the exchange.
    pub(crate) fn set_request_id(&self, id: RequestId) {
        let _ = self.request_id.set(id);
    }

    pub(crate) fn set_route(&self, fields: &Arc<RouteFields>) {
        let _ = self.route.set(fields.clone());
    }

    /// Sets the id of the request's record.
    pub(crate) fn set_record(&self, id: &[u8; 16]) {
        let _ = self.record.set(*id);
    }

    /// Sets the number of items of a batch.
    pub(crate) fn set_items(&self, items: usize) {
        self.items.store(items, Ordering::Relaxed);
    }

    /// Sets the id of the problem that the gateway answers with.
    pub(crate) fn set_instance(&self, instance: uuid::Uuid) {
        let _ = self.instance.set(instance);
    }

    pub(crate) fn set_outcome(&self, outcome: &'static str) {
        let _ = self.outcome.set(outcome);
    }

    /// Counts bytes of the request's body.
    pub(crate) fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes the exchange a sampled one.
    pub(crate) fn set_trace(&self, trace: Arc<ActiveTrace>) {
        let _ = self.trace.set(trace);
    }

    /// Ends the span of the exchange, with its answer.
    pub(crate) fn end_trace(&self, method: &str, status: StatusCode) {
        let Some(trace) = self.trace.get() else { return };
        let mut attributes = vec![
            ("http.request.method", method.into()),
            ("http.response.status_code", status.into()),
            ("oncegate.request_id", self.request_id().to_string().as_str().into()),
        ];
        if let Some(fields) = self.route.get() {
            attributes.push(("http.route", (&*fields.route).into()));
        }
        if let Some(outcome) = self.outcome.get() {
            attributes.push(("oncegate.outcome", (*outcome).into()));
        }
        if let Some(record) = self.record() {
            attributes.push(("oncegate.record", record.as_str().into()));
        }
        trace.ended(status.is_server_error(), attributes);
    }

    fn record(&self) -> Option<String> {
        self.record.get().map(|id| format!("{:032x}", u128::from_be_bytes(*id)))
    }

    /// Adds the fields that are known to a line.
    fn add_to(&self, line: &mut LogLine) {
        line.add("request_id", self.request_id().to_string());
        if let Some(record) = self.record() {
            line.add("record", record);
        }
        if let Some(fields) = self.route.get() {
            line.add("route", &*fields.route);
            line.add("upstream", &*fields.upstream);
        }
        if let Some(outcome) = self.outcome.get() {
            line.add("outcome", *outcome);
        }
    }

    /// Adds all fields of a line in the access log but those of the answer.
    pub(super) fn add_access_fields(&self, line: &mut LogLine) {
        line.add("request_id", self.request_id().to_string());
        line.add("instance", self.instance.get().map(uuid::Uuid::to_string));
        line.add("route", self.route.get().map(|fields| &*fields.route));
        line.add("outcome", self.outcome.get().copied());
        line.add("record", self.record());
        if let items @ 1.. = self.items.load(Ordering::Relaxed) {
            line.add("items", items);
        }
        let upstream = self.upstream_micros.load(Ordering::Relaxed);
        line.add("upstream_ms", (upstream > 0).then(|| millis(upstream)));
        line.add("store_ms", millis(self.store_micros.load(Ordering::Relaxed)));
        line.add("bytes_in", self.received.load(Ordering::Relaxed));
    }
}

/// Microseconds as milliseconds.
#[expect(clippy::cast_precision_loss, reason = "no call lasts 2^53 microseconds")]
pub(super) fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

tokio::task_local! {
    static CURRENT: Arc<ExchangeSpan>;
}

/// Runs `work` as a part of the exchange.
pub(crate) fn within<F: Future>(
    span: Arc<ExchangeSpan>,
    work: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(span, work)
}

/// Runs `work`, in another task, as a part of the present exchange.
pub(crate) fn carried<F>(work: F) -> impl Future<Output = F::Output>
where
    F: Future + Unpin,
{
    let span = current();
    async move {
        match span {
            Some(span) => CURRENT.scope(span, work).await,
            None => work.await,
        }
    }
}

/// Sets fields of the present exchange, if there is one.
pub(crate) fn note(set: impl FnOnce(&ExchangeSpan)) {
    let _ = CURRENT.try_with(|span| set(span));
}

/// Uses the id of the present exchange; without one, a new id.
pub(crate) fn with_request_id<T>(read: impl Fn(&RequestId) -> T) -> T {
    let current = CURRENT.try_with(|span| read(span.request_id()));
    current.unwrap_or_else(|_| read(&RequestId::new(None)))
}

/// The span of the present exchange.
pub(crate) fn current() -> Option<Arc<ExchangeSpan>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Adds the fields of the present exchange to a line.
pub(super) fn add_to(line: &mut LogLine) {
    note(|span| span.add_to(line));
}

/// Adds an operation of the store to the present exchange. `is_change`: a compare-and-swap, which
/// claims before the call to the backend, and completes after it.
pub(super) fn add_store_time(started: Instant, took: Duration, is_change: bool, is_error: bool) {
    note(|span| {
        span.store_micros.fetch_add(micros(took), Ordering::Relaxed);
        if let Some(trace) = span.trace.get().filter(|_| is_change) {
            let is_called = span.is_called.load(Ordering::Relaxed);
            let name = if is_called { SpanName::Complete } else { SpanName::Claim };
            trace.span(name, started, is_error, Vec::new());
        }
    });
}

/// Notes that the call to the backend begins.
pub(super) fn begin_call() {
    note(|span| span.is_called.store(true, Ordering::Relaxed));
}

/// The context of the present exchange for its backend; `None`: the exchange is not sampled.
pub(crate) fn traceparent() -> Option<HeaderValue> {
    CURRENT.try_with(|span| span.trace.get()?.traceparent()).ok().flatten()
}

/// Adds a call to the backend to the present exchange.
pub(super) fn add_upstream_time(started: Instant, took: Duration) {
    note(|span| {
        if let Some(trace) = span.trace.get() {
            let fields = span.route.get();
            let upstream = fields.map(|fields| ("oncegate.upstream", (&*fields.upstream).into()));
            trace.span(SpanName::Upstream, started, false, upstream.into_iter().collect());
        }
        // A call that takes no time at all is a call.
        span.upstream_micros.fetch_add(micros(took).max(1), Ordering::Relaxed);
    });
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::super::line::LogFormat;
    use super::*;

    fn line() -> String {
        let mut line = LogLine::new(Level::INFO, "m");
        add_to(&mut line);
        line.render(LogFormat::Text, false)
    }

    #[tokio::test]
    async fn a_line_has_the_fields_of_its_exchange_also_in_another_task() {
        let span = ExchangeSpan::new();
        let id = span.request_id().to_string();
        within(span.clone(), async {
            assert_eq!(with_request_id(RequestId::to_string), id);
            assert!(line().ends_with(&format!("INFO m request_id={id}\n")));
            note(|span| span.set_record(&[7; 16]));
            add_store_time(Instant::now(), Duration::from_micros(1500), true, false);
            let work = Box::pin(async {
                tokio::task::yield_now().await;
                add_upstream_time(Instant::now(), Duration::from_micros(250));
                let (route, upstream) = ("redeem".into(), "b".into());
                let fields = Arc::new(RouteFields { route, upstream });
                note(|span| span.set_route(&fields));
                line()
            });
            let tasks = tokio_util::task::TaskTracker::new();
            let reply = tasks.spawn(carried(work)).await.unwrap();
            let record = "07".repeat(16);
            let wanted = format!("request_id={id} record={record} route=redeem upstream=b\n");
            assert!(reply.ends_with(&wanted), "{reply}");
        })
        .await;
        assert!(line().ends_with("INFO m\n"));
        assert!(carried(Box::pin(async { line() })).await.ends_with("INFO m\n"));
        let mut access = LogLine::new(Level::INFO, "access");
        span.add_access_fields(&mut access);
        let text = access.render(LogFormat::Text, false);
        assert!(text.contains("upstream_ms=0.25 store_ms=1.5 bytes_in=0"), "{text}");
        assert!(text.contains("instance=null route=redeem outcome=null"), "{text}");
    }
}
