//! The machine the figures belong to.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::Failure;

/// Appends that are timed.
const SYNCS: usize = 101;

/// The cores this process may use, from `/proc/self/status`.
pub(crate) fn cores() -> Result<Vec<usize>, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .ok_or("no Cpus_allowed_list")?;
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cores)
}

/// Writes to the disk what was left to be written later: it belongs to the load that left it.
pub(crate) fn flush() -> Result<(), Failure> {
    let status = Command::new("sync").status()?;
    if status.success() { Ok(()) } else { Err("sync failed".into()) }
}

/// A list of cores as `taskset` takes it.
pub(crate) fn list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// Binds this process to these cores: all of its threads, and those it starts from now on.
pub(crate) fn stay_on(cores: &[usize]) -> Result<(), Failure> {
    let pid = std::process::id().to_string();
    let set = Command::new("taskset").args(["-acp", &list(cores), &pid]).output()?;
    if set.status.success() { Ok(()) } else { Err("taskset refused".into()) }
}

/// One line per fact, as a markdown list.
pub(crate) fn description(tmp: &Path) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = os
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("unknown")
        .trim_matches('"');
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let redis = said("redis-server", &["--version"]);
    let redis =
        redis.split_whitespace().find(|word| word.starts_with("v=")).unwrap_or("").to_owned();
    format!(
        "- CPU: {model}, {cores} cores\n\
         - System: {system}, kernel {}, store on {}\n\
         - Versions: {}; redis {}; {}\n",
        said("uname", &["-r"]),
        said("stat", &["-f", "-c", "%T", &tmp.to_string_lossy()]),
        said("nginx", &["-v"]),
        redis.trim_start_matches("v="),
        said("rustc", &["--version"]),
    )
}

/// How busy the machine was of late, and how long the disk below `tmp` takes to keep an append now:
/// without both, rates of durable writes mean nothing.
pub(crate) fn state(tmp: &Path) -> Result<String, Failure> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let mut file = fs::File::create(tmp.join("sync"))?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let median = crate::report::median(times);
    Ok(format!("load average {load}; an append of 4 KiB with fdatasync took {median:.2} ms"))
}

/// What a program prints, on either stream, as one line.
fn said(program: &str, arguments: &[&str]) -> String {
    Command::new(program).args(arguments).output().map_or_else(
        |_| format!("{program}: missing"),
        |output| {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).lines().next().unwrap_or("").trim().to_owned()
        },
    )
}
