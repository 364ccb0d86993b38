//! The load generator: keep-alive connections on one thread, every answer checked.
//!
//! It shares its core with the backend, so it has to be cheap: requests are prepared bytes in which only
//! the key's digits change, and of an answer only what is checked is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::secure::{self, Wire};
use crate::{Failure, backend, process, tls};

/// What is posted: a redemption of about 200 bytes.
pub(crate) const BODY: &str = concat!(
    r#"{"qr":"https://redeem.example/v/7f3c9a51-2210-4d0e-9c3b","merchant":"mrc_2210","terminal":"till-03","#,
    r#""amount":{"value":500,"currency":"SGD"},"cashier":"c-118","basket":["coffee","kaya toast","eggs"]}"#,
);

/// The digits of a key, and where they end up unique.
const DIGITS: usize = 16;

/// Most response bytes looked at; the backend's answer and its headers are far smaller.
const MAX_RESPONSE: usize = 16 * 1024;

/// A run may not hang on a server that stopped answering.
pub(crate) const STALLED: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A GET without key or body.
    Get,
    /// A POST with a key never used before.
    Fresh,
    /// A POST with the one key that its connection always uses.
    Same,
    /// A fresh POST whose body is as large as that of a batch.
    FreshLarge,
    /// A batch of ten items with ids never used before.
    FreshBatch,
    /// The batch that its connection always sends.
    SameBatch,
}

impl Ask {
    fn is_fresh(self) -> bool {
        matches!(self, Self::Fresh | Self::FreshLarge | Self::FreshBatch)
    }

    fn is_batch(self) -> bool {
        matches!(self, Self::FreshBatch | Self::SameBatch)
    }
}

/// Items of a batch.
const ITEMS: usize = 10;

/// What `Idempotency-Status` must say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    /// Whatever it says: requests that only prepare a measurement.
    Any,
    /// The header must not be there.
    None,
    /// The header must be there and say this.
    Is(&'static str),
}

/// One measurement's load.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// Where every other connection goes instead: a second replica.
    pub(crate) second: Option<SocketAddr>,
    pub(crate) ask: Ask,
    pub(crate) status: Status,
    pub(crate) connections: usize,
    pub(crate) wire: Wire,
}

/// What one measurement found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Requests answered per second.
    pub(crate) rate: f64,
    /// CPU microseconds of the server per request, its helpers included.
    pub(crate) cpu: f64,
    /// Of these, what the helpers took: a store on a server of its own.
    pub(crate) helpers: f64,
    /// The share of its core that the server and its helpers used.
    pub(crate) busy: f64,
    /// All requests answered, warm-up included.
    pub(crate) answered: u64,
    /// How often the backend was asked meanwhile, warm-up included.
    pub(crate) hits: u64,
}

/// When to stop. Every connection asks at least once.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After a warm-up and the time to measure.
    Elapsed { warm_up: Duration, measured: Duration },
    /// After so many answers, or this time if it comes first.
    Answered(u64, Duration),
}

/// Numbers keys across all loads of this process, so that a fresh key is fresh.
pub(crate) static NEXT_KEY: AtomicU64 = AtomicU64::new(1_000_000);

#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) answered: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// The processes whose CPU time counts.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted<'a> {
    pub(crate) server: &'a [u32],
    /// What works for the server, and is told apart: its store.
    pub(crate) helpers: &'a [u32],
}

/// Puts the load on the server and measures its CPU meanwhile. The first wrong answer ends it.
pub(crate) fn run(load: &Load, until: Until, counted: Counted<'_>) -> Result<Sample, Failure> {
    let hits = backend::hits();
    let progress = Arc::new(Progress::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..load.connections {
            tasks.spawn(connection(load.clone(), number as u64, Arc::clone(&progress)));
        }
        let watch = watch(until, &progress, counted);
        tokio::pin!(watch);
        let measured = loop {
            tokio::select! {
                measured = &mut watch => break measured?,
                Some(ended) = tasks.join_next() => ended??,
            }
        };
        progress.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok::<_, Failure>(measured)
    })?;
    let answered = progress.answered.load(Ordering::Relaxed);
    Ok(Sample { answered, hits: backend::hits() - hits, ..measured })
}

/// Waits out the warm-up and the time to measure; gives rate, CPU per request and share of the core.
async fn watch(until: Until, progress: &Progress, counted: Counted<'_>) -> Result<Sample, Failure> {
    if let Until::Elapsed { warm_up, .. } = until {
        tokio::time::sleep(warm_up).await;
    }
    let read = || {
        let count = progress.answered.load(Ordering::Relaxed);
        (count, process::cpu(counted.server), process::cpu(counted.helpers), Instant::now())
    };
    let (count, server, helpers, time) = read();
    match until {
        Until::Elapsed { measured, .. } => tokio::time::sleep(measured).await,
        Until::Answered(wanted, at_most) => {
            while progress.answered.load(Ordering::Relaxed) < wanted && time.elapsed() < at_most {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    let (last, server_now, helpers_now, now) = read();
    let (requests, elapsed) = ((last - count) as f64, (now - time).as_secs_f64());
    if requests == 0.0 {
        return Err("nothing was answered in time".into());
    }
    // A child that ended meanwhile takes its time with it.
    let helped = helpers_now.saturating_sub(helpers).as_secs_f64();
    let used = server_now.saturating_sub(server).as_secs_f64() + helped;
    Ok(Sample {
        rate: requests / elapsed,
        cpu: used * 1e6 / requests,
        helpers: helped * 1e6 / requests,
        busy: used / elapsed,
        answered: 0,
        hits: 0,
    })
}

async fn connection(load: Load, number: u64, progress: Arc<Progress>) -> Result<(), Failure> {
    let address = load.second.filter(|_| number % 2 == 1).unwrap_or(load.address);
    match load.wire.clone() {
        Wire::Plain => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            requests(stream, &load, number, &progress).await
        }
        Wire::Tls(config) => {
            let stream = tls::connect(address, &config).await?;
            requests(stream, &load, number, &progress).await
        }
        Wire::Http2(config) => secure::requests(&load, &config, number, &progress).await,
        Wire::Handshake(config, kind) => secure::handshakes(&load, &config, kind, &progress).await,
    }
}

/// Asks over one connection of HTTP/1.1, one request after the other.
async fn requests<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    load: &Load,
    number: u64,
    progress: &Progress,
) -> Result<(), Failure> {
    let (mut request, keys) = prepare(load);
    let number_with = |request: &mut [u8], number: u64| {
        for key in &keys {
            write_digits(&mut request[key.clone()], number);
        }
    };
    number_with(&mut request, number);
    let body = if load.ask.is_batch() { None } else { Some(backend::ANSWER.as_bytes()) };
    let mut buffer = Vec::with_capacity(MAX_RESPONSE);
    loop {
        if load.ask.is_fresh() {
            number_with(&mut request, NEXT_KEY.fetch_add(1, Ordering::Relaxed));
        }
        stream.write_all(&request).await?;
        tokio::time::timeout(STALLED, answer(&mut stream, &mut buffer, load.status, body))
            .await
            .map_err(|_| "no answer in time")??;
        progress.answered.fetch_add(1, Ordering::Relaxed);
        if progress.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// The body of a batch, with blanks for the digits of its ids.
fn batch_body() -> String {
    let item = |number: usize| {
        let process = std::process::id();
        format!(
            r#"{{"requestId":"{process:08x}-{:DIGITS$}-{number}","rewardId":"R{number}","quantity":1}}"#,
            ""
        )
    };
    let items: Vec<String> = (0..ITEMS).map(item).collect();
    format!(r#"{{"mobile":"6591234567","brand":"kopi","rewards":[{}]}}"#, items.join(","))
}

/// A redemption with a body of `size` bytes and as many members as a batch has.
fn large_body(size: usize) -> String {
    let short = |note: &str| {
        let items: Vec<String> = (0..ITEMS)
            .map(|number| format!(r#"{{"sku":"S{number}","name":"{note}","quantity":1}}"#))
            .collect();
        format!(r#"{{"qr":"rsg:7f3c9a51","items":[{}],"note":""}}"#, items.join(","))
    };
    let note = "n".repeat(size.saturating_sub(short("").len()) / ITEMS);
    short(&note)
}

/// The request's bytes, and where in them the digits of its keys are (nowhere for a GET).
pub(crate) fn prepare(load: &Load) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let Load { address, ask, .. } = load;
    let common = format!(
        "Host: {address}\r\nUser-Agent: till/4.2\r\nAccept: application/json\r\n\
         Authorization: Bearer 4f9c2e71a0\r\n",
    );
    if *ask == Ask::Get {
        let request = format!("GET /vouchers/7f3c9a51 HTTP/1.1\r\n{common}\r\n");
        return (request.into_bytes(), Vec::new());
    }
    if ask.is_batch() {
        let body = batch_body();
        let head = format!(
            "POST /batch HTTP/1.1\r\n{common}Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let request = head + &body;
        let blank = " ".repeat(DIGITS);
        let keys = request.match_indices(&blank).map(|(at, _)| at..at + DIGITS).collect();
        return (request.into_bytes(), keys);
    }
    let body = match ask {
        Ask::FreshLarge => large_body(batch_body().len()),
        _ => BODY.to_owned(),
    };
    // Runs must not meet the keys of earlier ones: the process id is part of each.
    let start = format!(
        "POST /redeem HTTP/1.1\r\n{common}Content-Type: application/json\r\n\
         Content-Length: {}\r\nIdempotency-Key: \"bench-{:08x}-",
        body.len(),
        std::process::id(),
    );
    let key = start.len()..start.len() + DIGITS;
    (format!("{start}{:DIGITS$}\"\r\n\r\n{body}", "").into_bytes(), vec![key])
}

pub(crate) fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Reads one answer and checks it: 200, the backend's body (a batch's is made by the gateway), and
/// what it says of the key.
pub(crate) async fn answer<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    status: Status,
    wanted: Option<&[u8]>,
) -> Result<(), Failure> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the server closed a connection that was to be kept alive".into());
        }
        let mut headers = [httparse::EMPTY_HEADER; 48];
        let mut head = httparse::Response::new(&mut headers);
        if let httparse::Status::Complete(length) = head.parse(buffer)? {
            let body = &buffer[length..];
            let header = |name: &str| {
                let found = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                found.map(|h| h.value)
            };
            let expected = header("content-length").and_then(|v| std::str::from_utf8(v).ok());
            let expected: usize = expected.ok_or("no Content-Length")?.parse()?;
            if body.len() >= expected {
                let said = header("idempotency-status");
                let right = head.code == Some(200)
                    && wanted.is_none_or(|wanted| body == wanted)
                    && match status {
                        Status::Any => true,
                        Status::None => said.is_none(),
                        Status::Is(word) => said == Some(word.as_bytes()),
                    };
                return if right { Ok(()) } else { Err(wrong(buffer, status)) };
            }
        }
        if buffer.len() > MAX_RESPONSE {
            return Err("the answer is too large".into());
        }
    }
}

fn wrong(answer: &[u8], status: Status) -> Failure {
    format!(
        "expected 200 with the backend's body and Idempotency-Status: {status:?}, got: {}",
        String::from_utf8_lossy(answer),
    )
    .into()
}
