//! Clients that are not attackers, and the times of their requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use crate::load::{self, Ask, Load, NEXT_KEY, Status};
use crate::secure::Wire;
use crate::{Failure, backend, tls};

/// Number of tills; each sends a request in this time.
const CLIENTS: usize = 8;
const EVERY: Duration = Duration::from_millis(25);

pub(super) struct Others {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

pub(super) struct Times {
    pub(super) median: Duration,
    pub(super) p99: Duration,
    pub(super) elapsed: Duration,
}

impl Others {
    pub(super) fn new(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { address, tls }
    }

    /// Posts fresh keys for this time. Any answer but the wanted one is an error.
    pub(super) fn measure(&self, measured: Duration) -> Result<Times, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let started = Instant::now();
        let mut times = runtime.block_on(async {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..CLIENTS {
                let (address, tls) = (self.address, self.tls.clone());
                clients.spawn(async move {
                    match tls {
                        None => {
                            let stream = TcpStream::connect(address).await?;
                            stream.set_nodelay(true)?;
                            client(stream, address, measured).await
                        }
                        Some(config) => {
                            client(tls::connect(address, &config).await?, address, measured).await
                        }
                    }
                });
            }
            let mut times = Vec::new();
            while let Some(ended) = clients.join_next().await {
                times.extend(ended??);
            }
            Ok::<_, Failure>(times)
        })?;
        times.sort();
        let at = |part: f64| times[(times.len() as f64 * part) as usize];
        Ok(Times { median: at(0.5), p99: at(0.99), elapsed: started.elapsed() })
    }
}

/// The time of each request, from the moment when it was due: one that waits for the request before
/// it is late as well.
async fn client<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    address: SocketAddr,
    measured: Duration,
) -> Result<Vec<Duration>, Failure> {
    let status = Status::Is("executed");
    let load =
        Load { address, second: None, ask: Ask::Fresh, status, connections: 1, wire: Wire::Plain };
    let (mut request, keys) = load::prepare(&load);
    let (mut times, mut buffer) = (Vec::new(), Vec::new());
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + measured;
    while Instant::now() < end {
        let due = ticks.tick().await;
        for key in &keys {
            let number = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
            load::write_digits(&mut request[key.clone()], number);
        }
        stream.write_all(&request).await?;
        load::answer(&mut stream, &mut buffer, status, Some(backend::ANSWER.as_bytes())).await?;
        times.push(due.elapsed());
    }
    Ok(times)
}
