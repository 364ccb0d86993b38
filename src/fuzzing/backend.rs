//! The backend of a fuzzed exchange: it reads whole requests, holds the gateway to well-formed
//! ones, and answers with bytes that may be anything.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Bytes of the longest request that is read.
const LONGEST: usize = 1 << 20;

/// The sign of an answer after which the connection stays.
const STAYS: &[u8] = b"~";

/// A request as it arrived, without its body.
#[derive(Debug, Clone, Default)]
pub(super) struct ReceivedCall {
    pub(super) method: String,
    /// Values of the header lines with the key.
    pub(super) keys: Vec<Vec<u8>>,
}

/// The calls and the answers that they get, in turn.
#[derive(Debug, Clone, Default)]
pub(super) struct AnswerScript {
    answers: Arc<[Vec<u8>]>,
    calls: Arc<Mutex<Vec<ReceivedCall>>>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl AnswerScript {
    pub(super) fn new(answers: Vec<Vec<u8>>) -> Self {
        Self { answers: answers.into(), ..Self::default() }
    }

    pub(super) fn calls(&self) -> Vec<ReceivedCall> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests that no strict server takes for one request.
    pub(super) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a call and returns its answer.
    fn answer(&self, call: ReceivedCall) -> Vec<u8> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(call);
        let at = (calls.len() - 1) % self.answers.len().max(1);
        self.answers.get(at).cloned().unwrap_or_default()
    }

    fn fault(&self, what: &str, bytes: &[u8]) {
        let fault = format!("{what}: {}", bytes.escape_ascii());
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }
}

/// Serves connections until it is dropped.
pub(super) async fn serve(listener: UnixListener, script: AnswerScript) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, script.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(mut stream: UnixStream, script: AnswerScript) {
    let mut read = Vec::new();
    while let Some(call) = request(&mut stream, &mut read, &script).await {
        let answer = script.answer(call);
        let (answer, stays) = match answer.strip_prefix(STAYS) {
            Some(rest) => (rest, true),
            None => (&*answer, false),
        };
        if stream.write_all(answer).await.is_err() || !stays {
            return;
        }
    }
}

/// Reads a whole request; `None`: the connection ended, or the request is at fault.
async fn request(
    stream: &mut UnixStream,
    read: &mut Vec<u8>,
    script: &AnswerScript,
) -> Option<ReceivedCall> {
    let end = until(stream, read, b"\r\n\r\n").await?;
    let head: Vec<u8> = read.drain(..end).collect();
    let (call, framing) = match parse(&head) {
        Ok(parsed) => parsed,
        Err(what) => {
            script.fault(what, &head);
            return None;
        }
    };
    match framing {
        CallFraming::Length(length) => {
            while read.len() < length {
                more(stream, read).await?;
            }
            read.drain(..length);
        }
        CallFraming::Chunked => loop {
            let end = until(stream, read, b"\r\n").await?;
            let size: Vec<u8> = read.drain(..end).collect();
            let size = std::str::from_utf8(size.trim_ascii()).ok();
            let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else {
                script.fault("a chunk without a size", &head);
                return None;
            };
            while read.len() < size + 2 {
                more(stream, read).await?;
            }
            read.drain(..size + 2);
            if size == 0 {
                break;
            }
        },
    }
    Some(call)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallFraming {
    Length(usize),
    Chunked,
}

/// The call and the framing of a request's head.
fn parse(head: &[u8]) -> Result<(ReceivedCall, CallFraming), &'static str> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or("no end")?;
    let mut lines =
        text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().ok_or("no request line")?;
    let mut parts = first.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    if parts.next().is_some() || version != Some(b"HTTP/1.1") || target.is_none_or(<[u8]>::is_empty)
    {
        return Err("a request line of another form");
    }
    let method = String::from_utf8_lossy(method.unwrap_or_default()).into_owned();
    let mut call = ReceivedCall { method, keys: Vec::new() };
    let (mut hosts, mut lengths, mut codings) = (0, Vec::new(), 0);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("a line without a name")?;
        let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii());
        if line.contains(&b'\r') || name.iter().any(|byte| !byte.is_ascii_graphic()) {
            return Err("a line that can be read in two ways");
        }
        match &*name {
            b"host" => hosts += 1,
            b"content-length" => lengths.push(value),
            b"transfer-encoding" if value == b"chunked" => codings += 1,
            b"transfer-encoding" => return Err("another transfer coding"),
            b"idempotency-key" => call.keys.push(value.to_vec()),
            _ => {}
        }
    }
    if hosts != 1 {
        return Err("not one host");
    }
    match (&*lengths, codings) {
        ([], 0) => Ok((call, CallFraming::Length(0))),
        ([], 1) => Ok((call, CallFraming::Chunked)),
        ([length], 0) => {
            let length = std::str::from_utf8(length).ok().and_then(|it| it.parse().ok());
            Ok((call, CallFraming::Length(length.ok_or("a length that is no number")?)))
        }
        _ => Err("two framings"),
    }
}

/// Reads until `sign` has arrived; returns the position behind it.
async fn until(stream: &mut UnixStream, read: &mut Vec<u8>, sign: &[u8]) -> Option<usize> {
    loop {
        if let Some(at) = read.windows(sign.len()).position(|part| part == sign) {
            return Some(at + sign.len());
        }
        more(stream, read).await?;
    }
}

async fn more(stream: &mut UnixStream, read: &mut Vec<u8>) -> Option<()> {
    let count = stream.read_buf(read).await.ok()?;
    (count > 0 && read.len() <= LONGEST).then_some(())
}
