//! Traces of requests: `exchange` with its children `claim`, `upstream` and `complete`.
//!
//! Spans are built at their end from instants that are known anyway, and only for requests that are
//! sampled. They wait in a bounded queue for the task that sends them; a full queue drops spans and
//! counts them, so that a slow collector costs no request and no memory.

mod context;
mod encode;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::mpsc;

pub(crate) use self::context::TRACEPARENT;
pub(crate) use self::encode::export_request;

use self::context::TraceParent;
use crate::clock;
use crate::nonce;

/// Spans that wait to be sent.
const QUEUE: usize = 4096;

/// The source of traces of a gateway.
#[derive(Debug)]
pub(crate) struct Tracer {
    queue: mpsc::Sender<SpanRecord>,
    /// Requests whose random number is below are sampled when their client does not decide.
    below: u64,
    /// The same moment on both clocks: spans are stamped with the difference to it.
    anchor: (Instant, u64),
    dropped: AtomicU64,
}

/// A request that is sampled.
#[derive(Debug)]
pub(crate) struct ActiveTrace {
    tracer: Arc<Tracer>,
    trace: [u8; 16],
    /// Span of the client, from its `traceparent`.
    parent: Option<[u8; 8]>,
    exchange: [u8; 8],
    upstream: [u8; 8],
    began: Instant,
}

/// Name of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanName {
    /// The request, from its head to the head of its answer.
    Exchange,
    /// The claim, until it is durable.
    Claim,
    /// The call to the backend.
    Upstream,
    /// The outcome, until it is durable.
    Complete,
}

impl SpanName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Claim => "claim",
            Self::Upstream => "upstream",
            Self::Complete => "complete",
        }
    }
}

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct SpanRecord {
    trace: [u8; 16],
    span: [u8; 8],
    parent: Option<[u8; 8]>,
    name: SpanName,
    /// Nanoseconds since the Unix epoch.
    start: u64,
    end: u64,
    is_error: bool,
    attributes: Vec<(&'static str, SpanValue)>,
}

/// Value of a span's attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SpanValue {
    Text(String),
    Number(u64),
}

impl From<&str> for SpanValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<StatusCode> for SpanValue {
    fn from(status: StatusCode) -> Self {
        Self::Number(u64::from(status.as_u16()))
    }
}

impl Tracer {
    /// A tracer and its queue. `sample`: the share of requests that are sampled when their client
    /// does not decide, 0 to 1.
    pub(crate) fn new(sample: f64) -> (Arc<Self>, mpsc::Receiver<SpanRecord>) {
        let (queue, spans) = mpsc::channel(QUEUE);
        let anchor = (Instant::now(), clock::now().as_millis().saturating_mul(1_000_000));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of all numbers; the nearest one is near enough"
        )]
        let below = (sample.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        (Arc::new(Self { queue, below, anchor, dropped: AtomicU64::new(0) }), spans)
    }

    /// Begins the trace of a request; `None`: the request is not sampled. The flag of the client's
    /// `traceparent` decides, or else the share.
    pub(crate) fn begin(self: &Arc<Self>, headers: &HeaderMap) -> Option<Arc<ActiveTrace>> {
        let client = TraceParent::of(headers);
        let is_sampled = match &client {
            Some(client) => client.is_sampled,
            None => self.below > 0 && nonce::number() <= self.below,
        };
        is_sampled.then(|| {
            Arc::new(ActiveTrace {
                tracer: self.clone(),
                trace: client.map_or_else(nonce::bytes, |client| client.trace),
                parent: client.map(|client| client.span),
                exchange: span_id(),
                upstream: span_id(),
                began: Instant::now(),
            })
        })
    }

    /// The number of spans dropped since it was asked for last.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    fn nanos(&self, at: Instant) -> u64 {
        let (instant, nanos) = self.anchor;
        let since = u64::try_from(at.saturating_duration_since(instant).as_nanos());
        nanos.saturating_add(since.unwrap_or(u64::MAX))
    }
}

impl ActiveTrace {
    /// The context for the backend: its spans are children of the span `upstream`.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        context::written(&self.trace, &self.upstream)
    }

    /// Ends the span of the whole request.
    pub(crate) fn ended(&self, is_error: bool, attributes: Vec<(&'static str, SpanValue)>) {
        self.push(SpanName::Exchange, self.began, is_error, attributes);
    }

    /// Ends a span that began at `start`.
    pub(crate) fn span(
        &self,
        name: SpanName,
        start: Instant,
        is_error: bool,
        attributes: Vec<(&'static str, SpanValue)>,
    ) {
        self.push(name, start, is_error, attributes);
    }

    fn push(
        &self,
        name: SpanName,
        start: Instant,
        is_error: bool,
        attributes: Vec<(&'static str, SpanValue)>,
    ) {
        let (span, parent) = match name {
            SpanName::Exchange => (self.exchange, self.parent),
            SpanName::Upstream => (self.upstream, Some(self.exchange)),
            SpanName::Claim | SpanName::Complete => (span_id(), Some(self.exchange)),
        };
        let (start, end) = (self.tracer.nanos(start), self.tracer.nanos(Instant::now()));
        let trace = self.trace;
        let record = SpanRecord { trace, span, parent, name, start, end, is_error, attributes };
        if self.tracer.queue.try_send(record).is_err() {
            self.tracer.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A random id; never zero, which stands for none.
fn span_id() -> [u8; 8] {
    nonce::number().max(1).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static("traceparent"),
            HeaderValue::from_str(text).unwrap(),
        )])
    }

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_client_decides_and_else_the_share() {
        let (never, _spans) = Tracer::new(0.0);
        let (always, _spans) = Tracer::new(1.0);
        let unsampled = SAMPLED.replace("-01", "-00");
        for tracer in [&never, &always] {
            assert!(tracer.begin(&client(SAMPLED)).is_some());
            assert!(tracer.begin(&client(&unsampled)).is_none());
        }
        for nothing in [HeaderMap::new(), client("nonsense")] {
            assert!(never.begin(&nothing).is_none());
            assert!(always.begin(&nothing).is_some());
        }
        let (half, _spans) = Tracer::new(0.5);
        let sampled = (0..1000).filter(|_| half.begin(&HeaderMap::new()).is_some()).count();
        assert!((350..650).contains(&sampled), "{sampled}");
    }

    #[test]
    fn a_full_queue_drops_spans_and_counts_them() {
        let (tracer, mut spans) = Tracer::new(1.0);
        let trace = tracer.begin(&client(SAMPLED)).unwrap();
        for _ in 0..QUEUE + 7 {
            trace.span(SpanName::Claim, Instant::now(), false, Vec::new());
        }
        assert_eq!((tracer.take_dropped(), tracer.take_dropped()), (7, 0));
        let first = spans.try_recv().unwrap();
        assert_eq!(first.parent, Some(trace.exchange));
        assert!(first.end >= first.start && first.start > 1_700_000_000_000_000_000);
        let sent = trace.traceparent().unwrap();
        assert!(sent.to_str().unwrap().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    }
}
