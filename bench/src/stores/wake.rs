//! How long a duplicate on one replica waits for the answer to a call that another replica made.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Kind, Plan};
use crate::{Failure, backend};

/// Nothing in a round takes longer, or the run ends.
const STALLED: Duration = Duration::from_secs(10);

/// How long the duplicate has waited when the call is answered: at least so long, and up to as much
/// longer as the waiter's own looks are apart, so that they are met at every point.
const HELD: Duration = Duration::from_millis(60);
const LONGER: u32 = 200;

/// Most bytes of an answer; the backend's is far smaller.
const MAX_ANSWER: usize = 16 * 1024;

/// Milliseconds until the duplicate has its answer, for each call.
#[derive(Default)]
pub(super) struct Waits {
    /// Since the backend gave its answer.
    pub(super) since_outcome: Vec<f64>,
    /// Since the call's own client had its answer; below zero: the duplicate was first.
    pub(super) since_answer: Vec<f64>,
}

pub(super) fn measure(plan: &Plan, kind: &Kind) -> Result<Waits, Failure> {
    let [caller, waiter] = &kind.two.gateways[..] else { return Err("not two replicas".into()) };
    let (caller, waiter) = (caller.address, waiter.address);
    let mut caller = Client::connect(caller)?;
    let mut waiter = Client::connect(waiter)?;
    let mut waits = Waits::default();
    for number in 0..plan.wakes {
        let told = |failure| format!("{}, wait {number}: {failure}", kind.name);
        let (outcome, answer) = one(&mut caller, &mut waiter, number).map_err(told)?;
        waits.since_outcome.push(outcome);
        waits.since_answer.push(answer);
    }
    let median = crate::report::median(waits.since_outcome.clone());
    eprintln!("{}: {} waits, median {median:.2} ms", kind.name, plan.wakes);
    Ok(waits)
}

/// One call and its duplicate; the milliseconds as in [`Waits`].
fn one(caller: &mut Client, waiter: &mut Client, number: usize) -> Result<(f64, f64), Failure> {
    let key = format!("wake-{:08x}-{number}", std::process::id());
    let hits = backend::hits();
    caller.ask(&key)?;
    let start = Instant::now();
    while backend::hits() == hits {
        if start.elapsed() > STALLED {
            return Err("the call did not reach the backend".into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    waiter.ask(&key)?;
    let longer = number as u32 * 37 % LONGER;
    std::thread::sleep(HELD + Duration::from_millis(longer.into()));
    let (answered, replayed) = std::thread::scope(|scope| {
        let replayed = scope.spawn(|| waiter.answer("replayed"));
        let answered = scope.spawn(|| caller.answer("executed"));
        backend::release();
        (answered.join(), replayed.join())
    });
    let ended = |_| "a reader panicked";
    let (answered, replayed) = (answered.map_err(ended)??, replayed.map_err(ended)??);
    if backend::hits() != hits + 1 {
        return Err("the duplicate reached the backend".into());
    }
    let outcome = backend::released().ok_or("the call was not held")?;
    let millis = |from: Instant, to: Instant| {
        let ahead = to.saturating_duration_since(from).as_secs_f64();
        (ahead - from.saturating_duration_since(to).as_secs_f64()) * 1e3
    };
    Ok((millis(outcome, replayed), millis(answered, replayed)))
}

/// A client with one connection, kept alive.
struct Client {
    stream: TcpStream,
    address: SocketAddr,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALLED))?;
        Ok(Self { stream, address })
    }

    fn ask(&mut self, key: &str) -> Result<(), Failure> {
        let body = r#"{"qr":"https://redeem.example/v/7f3c9a51","terminal":"till-03"}"#;
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer 4f9c2e71a0\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nIdempotency-Key: \"{key}\"\r\n\r\n\
             {body}",
            backend::HELD,
            self.address,
            body.len(),
        );
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// Reads the answer, which must be a 200 with the backend's body and this status of the key; gives
    /// the time at which it was complete.
    fn answer(&mut self, status: &str) -> Result<Instant, Failure> {
        let mut buffer = Vec::with_capacity(MAX_ANSWER);
        while buffer.len() < MAX_ANSWER {
            let mut part = [0; 4096];
            let length = self.stream.read(&mut part)?;
            let now = Instant::now();
            if length == 0 {
                return Err("the server closed the connection".into());
            }
            buffer.extend_from_slice(&part[..length]);
            let mut headers = [httparse::EMPTY_HEADER; 48];
            let mut head = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(end) = head.parse(&buffer)? else { continue };
            let header = |name: &str| {
                let found = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                found.and_then(|h| std::str::from_utf8(h.value).ok())
            };
            let expected: usize = header("content-length").ok_or("no Content-Length")?.parse()?;
            if buffer.len() < end + expected {
                continue;
            }
            let right = head.code == Some(200)
                && header("idempotency-status") == Some(status)
                && &buffer[end..] == backend::ANSWER.as_bytes();
            let got = || format!("not {status}: {}", String::from_utf8_lossy(&buffer));
            return if right { Ok(now) } else { Err(got().into()) };
        }
        Err("the answer is too large".into())
    }
}
