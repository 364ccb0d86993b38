//! Processes: started on chosen cores, measured through `/proc`, ended when dropped.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Failure, machine};

/// `/proc/PID/stat` counts in ticks of `USER_HZ`, which Linux fixes at 100 for user space.
const TICK: Duration = Duration::from_millis(10);
/// How long a process may go on working when it is asked nothing any more, and how long it must do
/// nothing to count as done.
const REST: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// How long a server may take to answer its port, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of the benchmark, ended with its children when dropped.
pub(crate) struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts `command` on `cores`; its output goes to `tmp/NAME.log`, its id to the file `pids`, so that
    /// the calling script can end it even when this process is killed.
    pub(crate) fn start(
        name: &str,
        command: &[String],
        cores: &[usize],
        tmp: &Path,
        pids: &Path,
    ) -> Result<Self, Failure> {
        let log = tmp.join(format!("{name}.log"));
        let out = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let child = Command::new("taskset")
            .args(["-c", &machine::list(cores)])
            .args(command)
            // Where it works is how the calling script knows its own.
            .current_dir(tmp)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        let mut list = fs::OpenOptions::new().create(true).append(true).open(pids)?;
        writeln!(list, "{}", child.id())?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server accepts a connection.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) -> Result<(), Failure> {
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended ({status}): {}", self.name, self.last_words()).into());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("{} does not listen: {}", self.name, self.last_words()).into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Ends the server and waits: gently first, so that it can close its files.
    pub(crate) fn stop(&mut self) {
        let pid = self.pid().to_string();
        // The shell's own `kill`: a small system may have no program of that name.
        let gently = ["-c", "kill -TERM \"$1\"", "kill", &pid];
        let _ = Command::new("sh").args(gently).stderr(Stdio::null()).status();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// Loopback addresses nobody listens on: bound all at once, so that they differ, then released.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, Failure> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

/// CPU time (user and system) of these processes and their children so far.
pub(crate) fn cpu(roots: &[u32]) -> Duration {
    let mut ticks = 0;
    for (pid, parent, used) in processes() {
        if roots.contains(&pid) || roots.contains(&parent) {
            ticks += used;
        }
    }
    TICK * ticks
}

/// Waits until these processes have nothing left to do; gives the CPU time that takes. What a load leaves
/// to be merged belongs to it, and must not go on beside the next.
pub(crate) fn rest(roots: &[u32]) -> Duration {
    let (start, since) = (cpu(roots), Instant::now());
    let mut before = start;
    while since.elapsed() < REST {
        std::thread::sleep(LOOK);
        let now = cpu(roots);
        if now == before {
            break;
        }
        before = now;
    }
    before - start
}

/// Resident memory of a process now, in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64, Failure> {
    status_field(pid, "VmRSS:")
}

/// The most resident memory a process has had, in bytes.
pub(crate) fn peak(pid: u32) -> Result<u64, Failure> {
    status_field(pid, "VmHWM:")
}

fn status_field(pid: u32, name: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or(name.to_owned())?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Pid, parent and CPU ticks of every process.
fn processes() -> Vec<(u32, u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name stands in parentheses and may hold anything: count fields after the last one.
            let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            let field = |index: usize| fields.get(index)?.parse::<u32>().ok();
            Some((pid, field(1)?, field(11)? + field(12)?))
        })
        .collect()
}
