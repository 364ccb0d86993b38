//! The subcommand `siege`: what other clients notice while attackers hold or flood the gateway.
//!
//! First clients that send their heads byte by byte, and uploads of the largest size that do not
//! end; then attackers that open and reset streams of HTTP/2 and reconnect when they are cut off.
//! Each time a few other clients post fresh keys at a fixed rate, and their times are compared with
//! those of the same clients alone.

mod attackers;
mod others;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::args::Args;
use crate::cases::{REQUESTS, SECURE};
use crate::report::met;
use crate::servers::{Gateway, Place};
use crate::tls::Certificate;
use crate::{Failure, backend, machine, process};

use self::others::{Others, Times};

/// Clients with slow heads, and uploads that do not end.
const SLOW: usize = 5000;
const UPLOADS: usize = 1000;
/// Streams that are opened and reset in a second.
const RESETS: u64 = 20_000;
/// Wanted: the 99th percentile of other clients beside held connections, and beside resets.
const HELD_P99: Duration = Duration::from_secs(1);
const RESET_P99: Duration = Duration::from_millis(50);
/// Wanted: the memory for which the default of `buffered`, a quarter of it, is meant.
const BOUND: u64 = 1024 << 20;
const MIB: f64 = 1024.0 * 1024.0;

/// Counts of what the attackers did.
#[derive(Default)]
pub(crate) struct Counts {
    /// Connections that were opened.
    pub(crate) connections: AtomicU64,
    /// Streams that were opened and reset; bodies that were sent but for their last byte.
    pub(crate) done: AtomicU64,
    /// Uploads that were refused.
    pub(crate) refused: AtomicU64,
    pub(crate) stop: AtomicBool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let measured = Duration::from_secs(if args.flag("quick") { 5 } else { 20 });
    let cores = machine::cores()?;
    machine::stay_on(&[cores[cores.len() - 1]])?;
    let place = Place {
        tmp: args.path("tmp")?,
        pids: args.path("pids")?,
        bench: args.path("bench-dir")?,
        cores: vec![cores[0]],
        backend: backend::start()?,
    };
    let certificate = Certificate::write(&place.tmp)?;
    let binary: PathBuf = args.path("oncegate")?;
    let mut text = String::from(
        "| load | other clients, median | p99 | p99 without it | wanted | met |\n\
         |---|---:|---:|---:|---:|---|\n",
    );
    let only = args.text("only").unwrap_or_default();
    let mut notes = String::new();
    if "held".starts_with(only) {
        notes.push_str(&held(&place, &binary, measured, &mut text)?);
    }
    if "resets".starts_with(only) {
        let rate = args.or("resets", RESETS)?;
        notes.push_str(&resets(&place, &binary, (&certificate, rate), measured, &mut text)?);
    }
    text.push_str(&notes);
    text.push('\n');
    text.push_str(&machine::description(&place.tmp));
    print!("{text}");
    if let Some(out) = args.text("out") {
        std::fs::write(out, text)?;
    }
    Ok(())
}

/// Slow heads and uploads that do not end.
fn held(
    place: &Place,
    binary: &std::path::Path,
    measured: Duration,
    text: &mut String,
) -> Result<String, Failure> {
    let gateway = Gateway::start(place, binary, REQUESTS)?;
    let alone = Others::new(gateway.address, None).measure(measured)?;
    let idle = process::resident(gateway.server.pid())?;
    let counts = Arc::new(Counts::default());
    let attack = attackers::hold(gateway.address, SLOW, UPLOADS, &counts)?;
    let until = |wanted: usize| counts.connections.load(Ordering::Relaxed) >= wanted as u64;
    let mut waited = 0;
    while !until(SLOW + UPLOADS) && waited < 300 {
        std::thread::sleep(Duration::from_millis(100));
        waited += 1;
    }
    let beside = Others::new(gateway.address, None).measure(measured)?;
    let peak = process::peak(gateway.server.pid())?;
    counts.stop.store(true, Ordering::Relaxed);
    attack.join().map_err(|_| "an attacker ended early")??;
    row(text, "5,000 slow clients and 1,000 largest bodies", &beside, &alone, HELD_P99);
    Ok(format!(
        "\nSlow clients and bodies: {} connections opened, {} bodies sent but for their last byte, {} \
         refused; resident {:.0} MiB before and {:.0} MiB at most, of {:.0} MiB: {}.\n",
        counts.connections.load(Ordering::Relaxed),
        counts.done.load(Ordering::Relaxed),
        counts.refused.load(Ordering::Relaxed),
        idle as f64 / MIB,
        peak as f64 / MIB,
        BOUND as f64 / MIB,
        met(peak <= BOUND),
    ))
}

/// Streams that are reset as soon as they are open.
fn resets(
    place: &Place,
    binary: &std::path::Path,
    (certificate, rate): (&Certificate, u64),
    measured: Duration,
    text: &mut String,
) -> Result<String, Failure> {
    let gateway = Gateway::start_secure(place, binary, SECURE)?;
    let client = Arc::new(certificate.client("http/1.1")?);
    let alone = Others::new(gateway.address, Some(Arc::clone(&client))).measure(measured)?;
    let counts = Arc::new(Counts::default());
    let config = Arc::new(certificate.client("h2")?);
    let hits = backend::hits();
    let attack = attackers::reset(gateway.address, &config, rate, &counts)?;
    std::thread::sleep(Duration::from_secs(1));
    let before = counts.done.load(Ordering::Relaxed);
    let pid = [gateway.server.pid()];
    let (used, own) = (process::cpu(&pid), process::cpu(&[std::process::id()]));
    let beside = Others::new(gateway.address, Some(client)).measure(measured)?;
    let done = counts.done.load(Ordering::Relaxed) - before;
    // The gateway is a child of this process.
    let used = process::cpu(&pid).saturating_sub(used).as_secs_f64();
    let own = process::cpu(&[std::process::id()]).saturating_sub(own).as_secs_f64() - used;
    counts.stop.store(true, Ordering::Relaxed);
    attack.join().map_err(|_| "an attacker ended early")??;
    row(text, &format!("{rate} resets of streams a second"), &beside, &alone, RESET_P99);
    Ok(format!(
        "\nResets: {:.0} a second over {} connections; the gateway used {:.0} % of its core, attackers, \
         clients and backend {:.0} % of theirs, and {} requests reached the backend.\n",
        done as f64 / beside.elapsed.as_secs_f64(),
        counts.connections.load(Ordering::Relaxed),
        used / beside.elapsed.as_secs_f64() * 100.0,
        own / beside.elapsed.as_secs_f64() * 100.0,
        backend::hits() - hits,
    ))
}

fn row(text: &mut String, name: &str, beside: &Times, alone: &Times, wanted: Duration) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let _ = writeln!(
        text,
        "| {name} | {:.1} ms | {:.1} ms | {:.1} ms | < {:.0} ms | {} |",
        ms(beside.median),
        ms(beside.p99),
        ms(alone.p99),
        ms(wanted),
        met(beside.p99 < wanted),
    );
}
