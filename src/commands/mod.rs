//! The commands: `run`, `demo` and `health` here, `store …` in `store`, `records …` in `records`,
//! which asks a running gateway through `admin_client`. Their arguments are in `cli`.

mod admin_client;
mod records;
mod store;

use std::io::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use self::records::records;
pub use self::store::store;

use crate::cli::{Exit, HealthArgs, RunArgs};
use crate::config::Config;
use crate::gateway::{self, StartError};
use crate::shutdown;

/// Time that `oncegate health` waits for the gateway.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of a health response that are read, at most.
const HEALTH_ANSWER: u64 = 16 << 10;

/// `oncegate run`: until SIGTERM or SIGINT, then drains.
pub fn run(args: &RunArgs) -> Exit {
    let config = match args.configuration() {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    block_on_workers(config.server.workers, serve(config))
}

async fn serve(config: Config) -> Exit {
    let (trigger, signaled) = shutdown::channel();
    // First of all: a signal may follow at once when "ready" is printed.
    let [mut terminate, mut interrupt, mut hang_up] = match signals() {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("cannot listen for signals: {error}")),
    };
    let started = tokio::select! {
        started = gateway::start(config, signaled) => started,
        // A start may wait for its store. Nothing was accepted yet.
        _ = terminate.recv() => return Exit::Ok,
        _ = interrupt.recv() => return Exit::Ok,
    };
    let running = match started {
        Ok(running) => running,
        Err(StartError::Configuration(text)) => {
            eprintln!("oncegate: {text}");
            return Exit::Usage;
        }
        Err(StartError::Obstacle(text)) => return failed(&text),
    };
    if let Some(id) = running.new_store {
        say(&format!(
            "oncegate: the store {id} is new and empty: no key used before is known here"
        ));
    }
    for address in &running.listening {
        say(&format!("oncegate: listening on {address}"));
    }
    say(&format!("oncegate: admin on {}", running.admin));
    say("oncegate: ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => tracing::warn!(
                "SIGHUP ignored: this version cannot reload its configuration; restart to apply \
                 changes"
            ),
        }
    }
    trigger.fire();
    tokio::select! {
        drained = running.finished() => {
            if !drained {
                tracing::warn!(
                    "drain time is over; calls still in flight become unknown at the next start"
                );
            }
        }
        _ = terminate.recv() => tracing::warn!("second signal to end; the drain is cut short"),
        _ = interrupt.recv() => tracing::warn!("second signal to end; the drain is cut short"),
    }
    Exit::Ok
}

/// SIGTERM and SIGINT, which drain, and SIGHUP, which would end the process if nobody listened.
fn signals() -> std::io::Result<[Signal; 3]> {
    Ok([
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ])
}

/// `oncegate demo`
pub fn demo(args: &crate::cli::DemoArgs) -> Exit {
    let options = crate::demo::DemoOptions { keep: args.keep, json: args.json };
    block_on(async move {
        match crate::demo::run(options).await {
            Ok(()) => Exit::Ok,
            Err(error) => failed(&error),
        }
    })
}

/// `oncegate health`: 0 when the gateway answers that it is ready.
pub fn health(args: &HealthArgs) -> Exit {
    let Ok(uri) = args.admin.parse::<http::Uri>() else {
        eprintln!("--admin {}: not a URL such as http://127.0.0.1:9090", args.admin);
        return Exit::Usage;
    };
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        eprintln!("--admin {}: an http URL with a host is needed", args.admin);
        return Exit::Usage;
    };
    let Some(port) = admin_client::port(authority) else {
        eprintln!("--admin {}: the port is a number, 1 to 65535", args.admin);
        return Exit::Usage;
    };
    let target = (authority.host().to_owned(), port);
    block_on(async move {
        match tokio::time::timeout(HEALTH_TIMEOUT, readiness(&target)).await {
            Ok(Ok((true, answer))) => {
                say(answer.trim_end());
                Exit::Ok
            }
            Ok(Ok((false, answer))) => failed(answer.trim_end()),
            Ok(Err(error)) => failed(&format!("the gateway cannot be asked: {error}")),
            Err(_) => failed("the gateway did not answer in time"),
        }
    })
}

/// Asks `/readyz`; returns the readiness and the response body.
async fn readiness(target: &(String, u16)) -> std::io::Result<(bool, String)> {
    let host = target.0.trim_matches(['[', ']']);
    let mut stream = TcpStream::connect((host, target.1)).await?;
    let request = "GET /readyz HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(HEALTH_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    if answer.is_empty() {
        let what = "the connection was closed without an answer; is this its [admin] listen, and \
                    are too many connections open there?";
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what));
    }
    let ready = answer.split_whitespace().nth(1) == Some("200");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((ready, body.to_owned()))
}

/// Runs a command that serves no clients.
fn block_on(work: impl Future<Output = Exit>) -> Exit {
    block_on_workers(1, work)
}

fn block_on_workers(workers: usize, work: impl Future<Output = Exit>) -> Exit {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.worker_threads(workers).enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => failed(&format!("cannot start the runtime: {error}")),
    }
}

/// Prints a line on standard output. A closed output is no failure: the reader has stopped.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn failed(what: &str) -> Exit {
    eprintln!("oncegate: {what}");
    Exit::Failed
}
