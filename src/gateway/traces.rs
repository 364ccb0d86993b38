//! The task that sends spans to a collector, by OTLP over HTTP.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout, timeout_at};

use crate::body::full;
use crate::config::{TracesConfig, default_upstream};
use crate::observe::repeated::Repeated;
use crate::observe::traces::{SpanRecord, Tracer, export_request};
use crate::shutdown::Shutdown;
use crate::upstream::Upstream;

/// Spans of a request to the collector.
const BATCH: usize = 512;
/// Time for which spans gather.
const GATHER: Duration = Duration::from_secs(1);
/// Time limit for a request to the collector.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the collector's answer that are read.
const ANSWER: usize = 64 << 10;

static LOST: Repeated = Repeated::new("spans could not be sent to the collector");

/// The sender of a gateway's spans.
pub(super) struct TraceSender {
    collector: Upstream,
    tracer: Arc<Tracer>,
    spans: Receiver<SpanRecord>,
    instance: String,
}

/// The tracer and the sender of a configuration; `None`: no collector is configured.
///
/// # Errors
/// The collector's address cannot be used.
pub(super) fn open(
    config: &TracesConfig,
    instance: &[u8; 16],
) -> Result<Option<(Arc<Tracer>, TraceSender)>, String> {
    let Some(otlp) = &config.otlp else { return Ok(None) };
    let collector = Upstream::new(&default_upstream("otlp", otlp.clone()))?;
    let (tracer, spans) = Tracer::new(config.sample);
    let instance = uuid::Uuid::from_bytes(*instance).to_string();
    let sender = TraceSender { collector, tracer: tracer.clone(), spans, instance };
    Ok(Some((tracer, sender)))
}

impl TraceSender {
    /// Sends spans until the shutdown, and then those that wait.
    pub(super) async fn run(mut self, mut shutdown: Shutdown) {
        loop {
            let first = tokio::select! {
                first = self.spans.recv() => first,
                () = shutdown.wait() => break,
            };
            let Some(first) = first else { return };
            let batch = self.gather(first).await;
            self.send(&batch).await;
        }
        // What the last exchanges queue is gathered for a moment; the process does not wait longer.
        while let Ok(first) = self.spans.try_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            self.send(&batch).await;
        }
    }

    async fn gather(&mut self, first: SpanRecord) -> Vec<SpanRecord> {
        let until = Instant::now() + GATHER;
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match timeout_at(until, self.spans.recv()).await {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }

    /// Sends a batch once. A batch that the collector does not take is lost.
    async fn send(&self, batch: &[SpanRecord]) {
        let sent = timeout(TIMEOUT, self.post(export_request(batch, &self.instance))).await;
        let failure = match sent {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some(format!("no answer within {TIMEOUT:?}")),
        };
        let dropped = self.tracer.take_dropped();
        let lost = dropped + failure.as_ref().map_or(0, |_| batch.len() as u64);
        if lost > 0
            && let Some(times) = LOST.occur()
        {
            let error = failure.unwrap_or_else(|| "the collector is slow".to_owned());
            tracing::warn!(
                error,
                spans = lost,
                times,
                "spans could not be sent to the collector and are lost; requests are not affected"
            );
        }
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), String> {
        let mut request = Request::new(full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static("/v1/traces");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static("oncegate"));
        let response = self.collector.send(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        // Read to its end, so that the connection is used for the next batch.
        let _ = Limited::new(response.into_body(), ANSWER).collect().await;
        if status.is_success() { Ok(()) } else { Err(format!("the collector answered {status}")) }
    }
}
