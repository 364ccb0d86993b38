//! Which engine the embedded store stands on: the same load on each, in a process of its own.
//!
//! The load is the gateway's: many requests at once, each with two durable writes one after the other
//! (the claim, then the completed record), all going through one writer thread that takes whatever
//! waits as one batch with one sync. What differs is the engine behind the writer thread. The engine
//! `none` writes nothing; what it costs is the harness and is taken off the others.

mod append;
mod fjall;
mod group;
mod redb;
pub(crate) mod reopen;

use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::args::Args;
use crate::{process, report};

pub(crate) use self::fjall::Settings;

/// One durable write.
pub(crate) struct Write {
    pub(crate) key: [u8; 16],
    pub(crate) value: Vec<u8>,
    /// Whether this is a claim, whose key must be absent.
    pub(crate) claim: bool,
}

/// What stands behind the writer thread.
pub(crate) trait Engine: Send {
    /// Makes all these writes durable, with one sync.
    fn commit(&mut self, batch: &[Write]) -> Result<(), Failure>;
}

/// Writes nothing: what the harness itself costs.
struct Nothing;

impl Engine for Nothing {
    fn commit(&mut self, _: &[Write]) -> Result<(), Failure> {
        Ok(())
    }
}

/// fjall as it configures itself on two cores.
const DEFAULTS: &[&str] = &["--memtable-mib", "64", "--journal-mib", "512", "--workers", "2"];
const ROTATED: &[&str] = &["--own-rotation"];
const READ_FIRST: &[&str] = &["--own-rotation", "--read-first"];
const INDEXED: &[&str] = &["--own-rotation", "--read-first", "--keyspaces", "2"];

/// The rows of the comparison: a name, an engine and the settings that make it.
const ROWS: &[(&str, &str, &[&[&str]])] = &[
    ("append + fdatasync", "append", &[]),
    ("fjall, as it comes", "fjall", &[DEFAULTS]),
    ("fjall, bounded, one worker, own rotation", "fjall", &[ROTATED]),
    ("… and the absent key read before a claim", "fjall", &[READ_FIRST]),
    ("… and an index of expiry", "fjall", &[INDEXED]),
    ("… the same with SyncAll", "fjall", &[INDEXED, &["--sync", "all"]]),
    ("… the same with two workers", "fjall", &[INDEXED, &["--workers", "2"]]),
    ("redb, immediate durability", "redb", &[]),
];

/// Measures every engine in interleaved rounds and prints a table; then how a filled fjall opens.
pub(crate) fn compare(args: &Args) -> Result<(), Failure> {
    let dir = args.path("dir")?;
    let mut harness = Vec::new();
    let mut found: Vec<Vec<Found>> = ROWS.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.or("rounds", 3)? {
        harness.push(row(&dir, args, "none", &[])?);
        for ((_, kind, settings), rounds) in ROWS.iter().zip(&mut found) {
            rounds.push(row(&dir, args, kind, &settings.concat())?);
        }
    }
    let harness_cpu = median(&harness, |found| found.cpu);
    println!(
        "| engine | CPU µs per request | of it the engine | requests/s | writes per sync | disk, MiB |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for ((name, ..), rounds) in ROWS.iter().zip(&found) {
        let cpu = median(rounds, |found| found.cpu);
        println!(
            "| {name} | {cpu:.1} | {:.1} | {:.0} | {:.0} | {:.0} |",
            cpu - harness_cpu,
            median(rounds, |found| found.rate),
            median(rounds, |found| found.batch),
            median(rounds, |found| found.disk),
        );
    }
    let rate = median(&harness, |found| found.rate);
    println!("\nThe harness alone: {harness_cpu:.1} µs, {rate:.0} requests/s.");
    reopen::compare(&dir, args.or("records", 1_000_000)?)
}

fn median(rounds: &[Found], figure: impl Fn(&Found) -> f64) -> f64 {
    report::median(rounds.iter().map(figure).collect())
}

/// What a measurement of one engine found.
struct Found {
    rate: f64,
    batch: f64,
    cpu: f64,
    disk: f64,
}

/// Runs one engine in a process of its own, in an empty directory.
fn row(dir: &Path, args: &Args, kind: &str, settings: &[&str]) -> Result<Found, Failure> {
    let place = dir.join("engine");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place)?;
    let seconds: f64 = args.or("seconds", 8.0)?;
    let writers: usize = args.or("writers", 64)?;
    let ran = Command::new(std::env::current_exe()?)
        .args(["engine", "--kind", kind, "--dir"])
        .arg(&place)
        .args(["--seconds", &seconds.to_string(), "--writers", &writers.to_string()])
        .args(settings)
        .output()?;
    let disk = directory_size(&place);
    let _ = std::fs::remove_dir_all(&place);
    let printed = String::from_utf8_lossy(&ran.stdout);
    let figures: Vec<f64> =
        printed.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match figures[..] {
        [rate, batch, cpu] if ran.status.success() => {
            Ok(Found { rate, batch, cpu, disk: disk as f64 / f64::from(1 << 20) })
        }
        _ => Err(format!("{kind} {settings:?}: {}", String::from_utf8_lossy(&ran.stderr)).into()),
    }
}

/// The subcommand `engine`: prints requests/s, writes per sync and CPU µs per request.
pub(crate) fn measure_one(args: &Args) -> Result<(), Failure> {
    let dir = args.path("dir")?;
    let engine: Box<dyn Engine> = match args.text("kind") {
        Some("none") => Box::new(Nothing),
        Some("append") => Box::new(append::Append::open(&dir)?),
        Some("fjall") => Box::new(fjall::Fjall::open(&dir, &Settings::parse(args)?)?),
        Some("redb") => Box::new(redb::Redb::open(&dir)?),
        other => return Err(format!("no engine {other:?}").into()),
    };
    let before = process::cpu(&[std::process::id()]);
    let done = group::drive(engine, args.or("writers", 64)?, args.or("seconds", 8.0)?)?;
    let cpu = process::cpu(&[std::process::id()]) - before;
    println!(
        "{} {} {}",
        done.requests as f64 / done.elapsed.as_secs_f64(),
        done.requests as f64 * 2.0 / (done.batches as f64).max(1.0),
        cpu.as_secs_f64() * 1e6 / (done.requests as f64).max(1.0),
    );
    Ok(())
}

/// Bytes allocated below a directory (holes of preallocated files do not count).
pub(crate) fn directory_size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => directory_size(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
