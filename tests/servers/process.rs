//! A server's processes: started, found by name, stopped, paused, killed; and commands with an end.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::{POLL, WAIT_LIMIT, until};

/// Text in the command line of every process of one server.
///
/// The children of PostgreSQL have sessions of their own and outlive their parent for a while, so
/// neither the process group nor the parent finds them all.
#[derive(Debug, Clone)]
pub(super) struct Tag(String);

impl Tag {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The living processes. One that has ended and waits for its parent has no command line.
    fn processes(&self) -> Vec<Pid> {
        let entries = std::fs::read_dir("/proc").expect("/proc");
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            // Gone between the listing and the look: not a process of the server any more.
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(self.0.len()).any(|part| part == self.0.as_bytes())
        })
        .filter_map(Pid::from_raw)
        .collect()
    }

    fn signal(&self, signal: Signal) -> usize {
        let found = self.processes();
        for pid in &found {
            // Already gone is what a kill wants, and no harm to a pause.
            _ = kill_process(*pid, signal);
        }
        found.len()
    }
}

/// The main process of a server and all that belong to it.
#[derive(Debug)]
pub(super) struct Process {
    tag: Tag,
    log: PathBuf,
    main: Mutex<Option<Child>>,
}

impl Process {
    pub(super) fn new(tag: Tag, log: PathBuf) -> Self {
        Self { tag, log, main: Mutex::new(None) }
    }

    /// Starts `command` and waits until `ready` says so.
    ///
    /// # Errors
    /// The log, when the process ends before it is ready.
    pub(super) fn start(
        &self,
        mut command: Command,
        mut ready: impl FnMut() -> Result<(), String>,
    ) -> Result<(), String> {
        use std::os::unix::process::CommandExt as _;
        let mut main = self.lock();
        assert!(main.is_none(), "{}: runs already", self.tag.as_str());
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let errors = log.try_clone().expect("a log");
        command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let program = command.get_program().to_owned();
        let child = command.spawn().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let child = main.insert(child);
        let ended = until(self.tag.as_str(), || match child.try_wait() {
            Ok(None) => {
                ready().map(|()| None).map_err(|missing| format!("{missing}\n{}", self.log()))
            }
            ended => Ok(Some(ended)),
        });
        let Some(status) = ended else { return Ok(()) };
        *main = None;
        Err(format!("{program:?} ended at once ({status:?}):\n{}", self.log()))
    }

    /// What the server has printed, its end.
    pub(super) fn log(&self) -> String {
        const LINES: usize = 30;
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let skip = text.lines().count().saturating_sub(LINES);
        text.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn runs(&self) -> bool {
        self.lock().is_some()
    }

    /// Asks the main process to end and waits for it. Nothing, when it does not run.
    pub(super) fn stop(&self, signal: Signal) {
        let mut main = self.lock();
        let Some(child) = main.as_mut() else { return };
        _ = kill_process(Pid::from_child(child), signal);
        let mut asked = 1;
        until(self.tag.as_str(), || match child.try_wait() {
            Ok(None) => {
                let log = self.log();
                // Redis refuses while it writes its first append-only file, and does not come back to it.
                if log.matches("can't exit").count() >= asked {
                    asked += 1;
                    _ = kill_process(Pid::from_child(child), signal);
                }
                Err(format!("does not stop\n{log}"))
            }
            _ => Ok(()),
        });
        *main = None;
        drop(main);
        self.kill();
    }

    /// Kills every process of the server, the main one first, and waits until they are gone.
    pub(super) fn kill(&self) {
        if let Some(mut child) = self.lock().take() {
            _ = child.kill();
            _ = child.wait();
        }
        let end = Instant::now() + WAIT_LIMIT;
        while self.tag.signal(Signal::KILL) > 0 && Instant::now() < end {
            std::thread::sleep(POLL);
        }
    }

    /// Stops every process where it is, the main one first: it starts no others then.
    pub(super) fn pause(&self) {
        let main = self.lock().as_ref().map(Pid::from_child).expect("a running server");
        _ = kill_process(main, Signal::STOP);
        until(self.tag.as_str(), || {
            self.tag.signal(Signal::STOP);
            let moving = self.tag.processes().into_iter().find(|pid| !stopped(*pid));
            moving.map_or(Ok(()), |pid| Err(format!("{pid:?} does not pause")))
        });
    }

    /// Lets every process go on.
    pub(super) fn resume(&self) {
        self.tag.signal(Signal::CONT);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        // A test that failed while it held the lock must not hide the processes from the drop.
        self.main.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process stands still, or is gone.
fn stopped(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // The state follows the name, which may itself hold a bracket.
    stat.map_or(true, |stat| {
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 'Z']))
    })
}

/// Runs a command to its end.
///
/// # Errors
/// The standard error of a program that fails or takes longer than [`WAIT_LIMIT`].
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program:?}: {error}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let end = Instant::now() + WAIT_LIMIT;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() < end => std::thread::sleep(POLL),
            None => {
                _ = child.kill();
                _ = child.wait();
                return Err(format!("{program:?}: no end after {WAIT_LIMIT:?}"));
            }
        }
    };
    let text = |bytes: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&bytes.join().expect("a reader of a pipe")).trim_end().to_owned()
    };
    let output = (text(stdout), text(stderr));
    if status.success() {
        Ok(output.0)
    } else {
        Err(format!("{program:?}: {status}: {} {}", output.1, output.0))
    }
}

fn collect(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
