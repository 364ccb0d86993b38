//! How long a filled fjall takes to open after a crash, and what memory it then has.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::fjall::{Fjall, Settings};
use super::group::{CLAIM, RECORD, key, mix, value};
use super::{DEFAULTS, Engine, ROTATED, Write, directory_size};
use crate::Failure;
use crate::args::Args;
use crate::process;

/// Writes per sync while filling: about what 64 waiting requests make of it.
const BATCH: u64 = 64;

/// Point reads after opening, so that the caches fill before the memory is read off.
const READS: u64 = 20_000;

const INDEXED: &[&str] = &["--keyspaces", "2"];

const ROWS: &[(&str, &[&[&str]])] = &[
    ("as it comes, no index", &[DEFAULTS]),
    ("as it comes, with an index", &[DEFAULTS, INDEXED]),
    ("bounded, two workers", &[INDEXED, &["--workers", "2"]]),
    ("bounded, one worker", &[INDEXED]),
    ("bounded, one worker, own rotation", &[INDEXED, ROTATED]),
    ("… with a cache of 8 MiB", &[INDEXED, ROTATED, &["--cache-mib", "8"]]),
];

/// Fills, crashes and opens with each of the settings, and prints a table.
pub(crate) fn compare(dir: &Path, records: u64) -> Result<(), Failure> {
    println!(
        "\n| fjall with {records} records | disk, MiB | peak while filling, MiB | open, ms | then, MiB | after {READS} reads, MiB | read, hit µs | read, absent µs |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for (name, settings) in ROWS {
        let place = dir.join("reopen");
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place)?;
        let settings = settings.concat();
        let peak = child("fjall-fill", &place, records, &settings)?;
        let disk = directory_size(&place) >> 20;
        let opened = child("fjall-reopen", &place, records, &settings)?;
        println!("| {name} | {disk} | {peak} | {opened} |");
        let _ = std::fs::remove_dir_all(&place);
    }
    Ok(())
}

fn child(command: &str, dir: &Path, records: u64, settings: &[&str]) -> Result<String, Failure> {
    let ran = Command::new(std::env::current_exe()?)
        .args([command, "--records", &records.to_string(), "--dir"])
        .arg(dir)
        .args(settings)
        .output()?;
    if !ran.status.success() {
        return Err(format!("{command}: {}", String::from_utf8_lossy(&ran.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

/// The subcommand `fjall-fill`: writes claims and records, then ends without closing, as a crash would.
pub(crate) fn fill(args: &Args) -> Result<(), Failure> {
    let mut engine = Fjall::open(&args.path("dir")?, &Settings::parse(args)?)?;
    let records: u64 = args.required("records")?;
    let mut first = 0;
    while first < records {
        let numbers = first..(first + BATCH).min(records);
        for (claim, length) in [(true, CLAIM), (false, RECORD)] {
            let batch: Vec<Write> = numbers
                .clone()
                .map(|number| Write { key: key(number), value: value(number, length), claim })
                .collect();
            engine.commit(&batch)?;
        }
        first = numbers.end;
    }
    println!("{}", process::peak(std::process::id())? >> 20);
    std::process::exit(0);
}

/// The subcommand `fjall-reopen`: opens, reads, and says how long that took and in how much memory.
pub(crate) fn reopen(args: &Args) -> Result<(), Failure> {
    let start = Instant::now();
    let engine = Fjall::open(&args.path("dir")?, &Settings::parse(args)?)?;
    let opened = start.elapsed().as_millis();
    let then = process::resident(std::process::id())? >> 20;
    let records: u64 = args.required("records")?;
    let hit = reads(&engine, |index| key(mix(index) % records), true)?;
    let absent = reads(&engine, |index| key(records + index), false)?;
    let after = process::resident(std::process::id())? >> 20;
    println!("{opened} | {then} | {after} | {hit:.1} | {absent:.1}");
    Ok(())
}

/// Microseconds per point read.
fn reads(engine: &Fjall, key: impl Fn(u64) -> [u8; 16], there: bool) -> Result<f64, Failure> {
    let start = Instant::now();
    for index in 0..READS {
        if engine.records.get(key(index))?.is_some() != there {
            return Err("a read found the wrong thing".into());
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / READS as f64)
}
