//! Clients that hold connections and memory, and clients that reset streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use super::Counts;
use crate::{Failure, tls};

/// Time between two bytes of a slow head.
const SLOW_BYTE: Duration = Duration::from_secs(2);
/// The largest body of a keyed route.
const BODY: usize = 1 << 20;
/// Time before a client that was cut off comes back.
const BACK: Duration = Duration::from_millis(100);

/// Attackers at once, and the streams that each opens and resets in a row.
const ATTACKERS: u64 = 64;
const IN_A_ROW: u64 = 10;

/// A thread with a runtime of its own, so that attackers and other clients do not wait for each
/// other inside this process.
fn thread<F, R>(attack: F) -> Result<JoinHandle<Result<(), Failure>>, Failure>
where
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = Result<(), Failure>>,
{
    Ok(std::thread::Builder::new().name("attackers".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(attack())
    })?)
}

/// Starts `slow` clients that send their heads byte by byte, and `uploads` whose bodies do not end.
pub(super) fn hold(
    address: SocketAddr,
    slow: usize,
    uploads: usize,
    counts: &Arc<Counts>,
) -> Result<JoinHandle<Result<(), Failure>>, Failure> {
    let counts = Arc::clone(counts);
    thread(move || async move {
        let body = Bytes::from(vec![b'1'; BODY]);
        for at in 0..slow.max(uploads) {
            if at < slow {
                tokio::spawn(again(Arc::clone(&counts), move |counts| slow_head(address, counts)));
            }
            if at < uploads {
                let body = body.clone();
                let one = move |counts| upload(address, at, body.clone(), counts);
                tokio::spawn(again(Arc::clone(&counts), one));
            }
            if at % 16 == 0 {
                // Not more at once than the listener's queue takes.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        stopped(&counts).await;
        Ok(())
    })
}

async fn stopped(counts: &Counts) {
    while !counts.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Does it again whenever it ends.
async fn again<F, R>(counts: Arc<Counts>, one: F)
where
    F: Fn(Arc<Counts>) -> R,
    R: Future<Output = Result<(), Failure>>,
{
    while !counts.stop.load(Ordering::Relaxed) {
        // Being cut off is what an attacker expects.
        let _ = one(Arc::clone(&counts)).await;
        tokio::time::sleep(BACK).await;
    }
}

async fn slow_head(address: SocketAddr, counts: Arc<Counts>) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address).await?;
    counts.connections.fetch_add(1, Ordering::Relaxed);
    stream.write_all(b"POST /redeem HTTP/1.1\r\nHost: a\r\nX: ").await?;
    loop {
        let mut byte = [0; 1];
        tokio::select! {
            ended = stream.read(&mut byte) => { ended?; return Ok(()) }
            () = tokio::time::sleep(SLOW_BYTE) => stream.write_all(b"x").await?,
        }
    }
}

async fn upload(
    address: SocketAddr,
    number: usize,
    body: Bytes,
    counts: Arc<Counts>,
) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address).await?;
    counts.connections.fetch_add(1, Ordering::Relaxed);
    let head = format!(
        "POST /redeem HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {number}\r\n\
         Content-Type: application/json\r\nIdempotency-Key: upload-{number}\r\n\
         Content-Length: {BODY}\r\n\r\n"
    );
    let (mut reader, mut writer) = stream.split();
    let mut answer = [0; 512];
    let sending = async {
        writer.write_all(head.as_bytes()).await?;
        writer.write_all(&body[1..]).await?;
        counts.done.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<Result<(), Failure>>().await
    };
    tokio::select! {
        ended = sending => ended,
        count = reader.read(&mut answer) => {
            if count? > 0 {
                counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    }
}

/// Starts attackers that open and reset `rate` streams a second together, and reconnect.
pub(super) fn reset(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    rate: u64,
    counts: &Arc<Counts>,
) -> Result<JoinHandle<Result<(), Failure>>, Failure> {
    let (counts, config) = (Arc::clone(counts), Arc::clone(config));
    let every =
        Duration::from_secs(1) * u32::try_from(ATTACKERS * IN_A_ROW)? / u32::try_from(rate)?;
    thread(move || async move {
        for at in 0..ATTACKERS {
            let (counts, config) = (Arc::clone(&counts), Arc::clone(&config));
            tokio::spawn(async move {
                // Not all at the same moment.
                tokio::time::sleep(every * u32::try_from(at).unwrap_or(0) / ATTACKERS as u32).await;
                let mut ticks = tokio::time::interval(every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                while !counts.stop.load(Ordering::Relaxed) {
                    let _ = flood(address, &config, &counts, &mut ticks).await;
                }
            });
        }
        stopped(&counts).await;
        Ok(())
    })
}

/// Opens and resets streams until the connection ends.
async fn flood(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    counts: &Counts,
    ticks: &mut tokio::time::Interval,
) -> Result<(), Failure> {
    let stream = tls::connect(address, config).await?;
    counts.connections.fetch_add(1, Ordering::Relaxed);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let flooding = async {
        writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        let mut stream = 1_u32;
        while !counts.stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let mut bytes = Vec::new();
            for _ in 0..IN_A_ROW {
                frame(&mut bytes, 1, 5, stream, HEAD);
                frame(&mut bytes, 3, 0, stream, &8_u32.to_be_bytes());
                stream += 2;
            }
            writer.write_all(&bytes).await?;
            writer.flush().await?;
            counts.done.fetch_add(IN_A_ROW, Ordering::Relaxed);
        }
        Ok::<(), Failure>(())
    };
    let ending = async {
        let mut buffer = [0; 4096];
        while reader.read(&mut buffer).await? > 0 {}
        Ok::<(), Failure>(())
    };
    tokio::select! {
        ended = flooding => ended,
        ended = ending => ended,
    }
}

/// GET https://127.0.0.1/vouchers: four fields, of the static table or literal (RFC 7541).
const HEAD: &[u8] = b"\x82\x87\x01\x09127.0.0.1\x04\x09/vouchers";

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    // Payloads here are shorter than 256 bytes.
    bytes.extend([0, 0, payload.len() as u8, kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}
