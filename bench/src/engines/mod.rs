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
use crate::process;

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

/// The rows of the comparison: a name and the settings that make it.
const ROWS: &[(&str, &[&str])] = &[
    ("append + fdatasync", &["--kind", "append"]),
    ("fjall, as it comes", &["--kind", "fjall", "--memtable-mib", "64", "--journal-mib", "512"]),
    ("fjall, 16 MiB memtable, 64 MiB journals", &["--kind", "fjall"]),
    ("the same, absent key read before a claim", &["--kind", "fjall", "--read-first"]),
    ("the same, second keyspace (expiry index)", &["--kind", "fjall", "--read-first", "--keyspaces", "2"]),
    ("the same, SyncAll", &["--kind", "fjall", "--read-first", "--keyspaces", "2", "--sync", "all"]),
    ("redb, immediate durability", &["--kind", "redb"]),
];

/// Measures every engine and prints a table; then how long a filled fjall takes to open.
pub(crate) fn compare(args: &Args) -> Result<(), Failure> {
    let dir = args.path("dir")?;
    let harness = row(&dir, args, &["--kind", "none"])?;
    println!("| engine | requests/s | writes per sync | CPU µs per request | of it the engine | disk, MiB |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, settings) in ROWS {
        let found = row(&dir, args, settings)?;
        println!(
            "| {name} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} |",
            found.rate,
            found.batch,
            found.cpu,
            found.cpu - harness.cpu,
            found.disk,
        );
    }
    println!("\nharness alone: {:.1} µs, {:.0} requests/s", harness.cpu, harness.rate);
    reopen::compare(&dir, args.or("records", 1_000_000)?)
}

/// What a measurement of one engine found.
struct Found {
    rate: f64,
    batch: f64,
    cpu: f64,
    disk: f64,
}

/// Runs one engine in a process of its own, in an empty directory.
fn row(dir: &Path, args: &Args, settings: &[&str]) -> Result<Found, Failure> {
    let place = dir.join("engine");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place)?;
    let seconds: f64 = args.or("seconds", 8.0)?;
    let writers: usize = args.or("writers", 64)?;
    let ran = Command::new(std::env::current_exe()?)
        .args(["engine", "--dir"])
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
        _ => Err(format!("{settings:?}: {}", String::from_utf8_lossy(&ran.stderr)).into()),
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
