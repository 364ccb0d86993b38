//! What the commands do: `run`, `demo`, `store …` and `health`. What may be typed is in `cli`.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Exit, HealthArgs, RunArgs, StoreArgs, StoreCommand};
use crate::clock::rfc3339;
use crate::config::{Config, Engine, defaults};
use crate::gateway;
use crate::shutdown;
use crate::store::Identity;
use crate::store::embedded;

/// How long `oncegate health` waits for the gateway.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
/// The most of a health answer that is read.
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
    block_on(serve(config))
}

async fn serve(config: Config) -> Exit {
    let (trigger, signaled) = shutdown::channel();
    // Before anything is announced: a signal that follows the announcement must find its ear.
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                return failed(&format!("cannot listen for signals: {error}"));
            }
        };
    let running = match gateway::start(config, signaled).await {
        Ok(running) => running,
        Err(error) => return failed(&error),
    };
    for address in &running.listening {
        say(&format!("oncegate: listening on {address}"));
    }
    say(&format!("oncegate: admin on {}", running.admin));
    say("oncegate: ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    trigger.fire();
    tokio::select! {
        drained = running.finished() => {
            if !drained {
                tracing::warn!("the drain ran out; what is still in flight is unknown at the next start");
            }
        }
        _ = terminate.recv() => tracing::warn!("told to end twice; not draining any longer"),
        _ = interrupt.recv() => tracing::warn!("told to end twice; not draining any longer"),
    }
    Exit::Ok
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

/// `oncegate store …`
pub fn store(command: &StoreCommand) -> Exit {
    let args = match command {
        StoreCommand::Init(args) | StoreCommand::Info(args) | StoreCommand::Verify(args) => args,
    };
    let (path, cache) = match args.place() {
        Ok((path, config)) => (path, config.map_or(defaults::CACHE, |config| cache_of(&config))),
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    match command {
        StoreCommand::Init(_) => match embedded::init(&path, cache) {
            Ok(identity) => {
                let text = format!("made an empty store, id {}", identity.store_id);
                print(args, &identity_json(&identity), &text);
                Exit::Ok
            }
            Err(error) => failed(&error.to_string()),
        },
        StoreCommand::Info(_) => match embedded::info(&path, cache) {
            Ok(info) => {
                print(args, &info_json(&info), &info_text(&info));
                Exit::Ok
            }
            Err(error) => failed(&error.to_string()),
        },
        StoreCommand::Verify(_) => verify(args, &path, cache),
    }
}

fn cache_of(config: &Config) -> u64 {
    let Engine::Embedded { cache, .. } = &config.store.engine;
    *cache
}

fn verify(args: &StoreArgs, path: &std::path::Path, cache: u64) -> Exit {
    let verified = embedded::verify(path, cache, |progress| {
        if !args.json {
            eprint!("\r{} of about {} records", progress.done, progress.about);
        }
    });
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => return failed(&error.to_string()),
    };
    let problems: Vec<_> = verified
        .problems
        .iter()
        .map(|(id, what)| json!({ "record": id.map(|id| id.to_string()), "what": what }))
        .collect();
    let document = json!({
        "sound": verified.sound,
        "problem_count": verified.problem_count,
        "problems": problems,
    });
    let mut text = format!("{} records are sound", verified.sound);
    for (id, what) in &verified.problems {
        let id = id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        text.push_str(&format!("\n{id}  {what}"));
    }
    if verified.problem_count > 0 {
        text.push_str(&format!(
            "\n{} problems; the keys of corrupt records are refused",
            verified.problem_count
        ));
    }
    print(args, &document, &text);
    if verified.problem_count == 0 { Exit::Ok } else { Exit::Failed }
}

fn identity_json(identity: &Identity) -> serde_json::Value {
    json!({
        "store_id": identity.store_id.to_string(),
        "schema": identity.schema,
        "created": rfc3339(identity.created),
    })
}

fn info_json(info: &embedded::Info) -> serde_json::Value {
    let mut document = identity_json(&info.identity);
    document["in_flight"] = info.in_flight.into();
    document["unknown"] = info.unknown.into();
    document["corrupt"] = info.corrupt.into();
    document["records"] = info.records.into();
    document["disk_bytes"] = info.disk_bytes.into();
    document
}

fn info_text(info: &embedded::Info) -> String {
    let rows = [
        ("store id", info.identity.store_id.to_string()),
        ("schema", info.identity.schema.to_string()),
        ("created", rfc3339(info.identity.created)),
        ("records, about", info.records.to_string()),
        ("in flight", info.in_flight.to_string()),
        ("unknown", info.unknown.to_string()),
        ("corrupt", info.corrupt.to_string()),
        ("bytes on disk", info.disk_bytes.to_string()),
    ];
    let lines: Vec<_> = rows.iter().map(|(name, value)| format!("{name:<16}{value}")).collect();
    lines.join("\n")
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
    let target = (authority.host().to_owned(), authority.port_u16().unwrap_or(80));
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

/// Whether `/readyz` answers 200, and what it says.
async fn readiness(target: &(String, u16)) -> std::io::Result<(bool, String)> {
    let host = target.0.trim_matches(['[', ']']);
    let mut stream = TcpStream::connect((host, target.1)).await?;
    let request = "GET /readyz HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(HEALTH_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let ready = answer.split_whitespace().nth(1) == Some("200");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((ready, body.to_owned()))
}

fn block_on(work: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => failed(&format!("cannot start the runtime: {error}")),
    }
}

fn print(args: &StoreArgs, document: &serde_json::Value, text: &str) {
    if args.json { say(&format!("{document:#}")) } else { say(text) }
}

/// A line on standard output. Whoever closed it has stopped reading, which is no failure.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn failed(what: &str) -> Exit {
    eprintln!("oncegate: {what}");
    Exit::Failed
}
