//! The real binary under a written configuration, its store kept across restarts.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use super::{Backend, WAIT_LIMIT, eventually};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_oncegate");

/// What a gateway is started with. Lines are TOML, put where their names say.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    dir: Arc<TempDir>,
    listen: String,
    url: String,
    server: Vec<String>,
    limits: Vec<String>,
    log: Vec<String>,
    admin: Vec<String>,
    store: Vec<String>,
    /// Takes the place of `[store.embedded]`.
    engine: Option<String>,
    tenant: Vec<String>,
    upstream: Vec<String>,
    redeem: Vec<String>,
    routes: Vec<String>,
    env: Vec<(String, String)>,
    edits: Vec<(String, String)>,
    file_size_limit: Option<u64>,
    shell: Vec<String>,
}

impl Setup {
    /// Routes: `redeem` (keyed), `optional` (a key may be absent), `rest` (passed through).
    pub(crate) fn before(backend: &Backend) -> Self {
        Self {
            dir: Arc::new(tempfile::tempdir().unwrap()),
            listen: "127.0.0.1:0".to_owned(),
            url: format!("http://{}", backend.addr()),
            server: Vec::new(),
            limits: Vec::new(),
            log: Vec::new(),
            admin: Vec::new(),
            store: Vec::new(),
            engine: None,
            tenant: Vec::new(),
            upstream: Vec::new(),
            redeem: Vec::new(),
            routes: Vec::new(),
            env: Vec::new(),
            edits: Vec::new(),
            file_size_limit: None,
            shell: Vec::new(),
        }
    }

    /// Listens here instead of on a free port.
    pub(crate) fn listen(self, listen: impl Into<String>) -> Self {
        Self { listen: listen.into(), ..self }
    }

    /// With a line of `[server]`.
    pub(crate) fn server(mut self, line: &str) -> Self {
        self.server.push(line.to_owned());
        self
    }

    /// With a line of `[server.limits]`.
    pub(crate) fn limits(mut self, line: &str) -> Self {
        self.limits.push(line.to_owned());
        self
    }

    /// With a line of `[log]`.
    pub(crate) fn log(mut self, line: &str) -> Self {
        self.log.push(line.to_owned());
        self
    }

    /// With a line of `[admin]`.
    pub(crate) fn admin(mut self, line: &str) -> Self {
        self.admin.push(line.to_owned());
        self
    }

    /// With a line of `[store]`.
    pub(crate) fn store(mut self, line: &str) -> Self {
        self.store.push(line.to_owned());
        self
    }

    /// On this store: a table such as `[store.postgres]` and its lines.
    pub(crate) fn on(self, engine: impl Into<String>) -> Self {
        Self { engine: Some(engine.into()), ..self }
    }

    /// The same in a directory of its own: for another replica.
    pub(crate) fn elsewhere(&self) -> Self {
        Self { dir: Arc::new(tempfile::tempdir().unwrap()), ..self.clone() }
    }

    /// With a line of `[tenant]`.
    pub(crate) fn tenant(mut self, line: &str) -> Self {
        self.tenant.push(line.to_owned());
        self
    }

    /// With a line of the `[[upstream]]`.
    pub(crate) fn upstream(mut self, line: &str) -> Self {
        self.upstream.push(line.to_owned());
        self
    }

    /// With a line of the route `redeem`, such as `duplicates.wait = "0s"`.
    pub(crate) fn redeem(mut self, line: &str) -> Self {
        self.redeem.push(line.to_owned());
        self
    }

    /// With a further route: the lines after `[[route]]`, without `upstream`.
    pub(crate) fn route(mut self, lines: &str) -> Self {
        self.routes.push(lines.to_owned());
        self
    }

    /// With this text of the configuration replaced by that.
    pub(crate) fn replacing(mut self, this: impl Into<String>, that: impl Into<String>) -> Self {
        self.edits.push((this.into(), that.into()));
        self
    }

    /// With an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// No file of the gateway may grow over this many blocks of 512 bytes: a full disk.
    pub(crate) fn file_size_limit(self, blocks: Option<u64>) -> Self {
        Self { file_size_limit: blocks, ..self }
    }

    /// With a line of shell that runs before the gateway, such as a limit.
    pub(crate) fn shell(mut self, line: impl Into<String>) -> Self {
        self.shell.push(line.into());
        self
    }

    /// The folder that holds the configuration and the store.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The store's directory.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.dir().join("store")
    }

    /// The configuration's path.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir().join("oncegate.toml")
    }

    /// The configuration as it is written.
    pub(crate) fn toml(&self) -> String {
        let embedded = || format!("[store.embedded]\npath = {:?}", self.store_path());
        let engine = self.engine.clone().unwrap_or_else(embedded);
        let mut text = format!(
            "[server]\nlisten = [\"{}\"]\n{}\n[server.limits]\n{}\n[log]\n{}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n{}\n\
             [store]\n{}\n{engine}\n[tenant]\n{}\n\
             [[upstream]]\nname = \"backend\"\nurl = \"{}\"\n{}\n",
            self.listen,
            self.server.join("\n"),
            self.limits.join("\n"),
            self.log.join("\n"),
            self.admin.join("\n"),
            self.store.join("\n"),
            self.tenant.join("\n"),
            self.url,
            self.upstream.join("\n"),
        );
        let redeem = format!(
            "name = \"redeem\"\nmethods = [\"POST\"]\npath = \"/v1/vouchers/redeem\"\n{}",
            self.redeem.join("\n")
        );
        let optional = "name = \"optional\"\nmethods = [\"POST\", \"PUT\"]\npath = \"/optional\"\n\
             key.required = false";
        let rest = "name = \"rest\"\nmethods = [\"GET\", \"HEAD\", \"OPTIONS\"]\npath = \"/{*rest}\"\n\
             mode = \"off\"";
        let given = self.routes.iter().map(String::as_str);
        for route in [redeem.as_str(), optional, rest].into_iter().chain(given) {
            writeln!(text, "[[route]]\nupstream = \"backend\"\n{route}").unwrap();
        }
        for (this, that) in &self.edits {
            assert!(text.contains(this), "no {this:?} in:\n{text}");
            text = text.replace(this, that);
        }
        text
    }

    /// Starts the gateway and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&self) -> Gateway {
        self.try_start().unwrap_or_else(|exit| panic!("no start: {exit:?}\n{}", self.toml()))
    }

    /// A start that may fail; otherwise as [`Self::start`].
    pub(crate) fn try_start(&self) -> Result<Gateway, Exit> {
        self.launch(&["run", "--config", &self.write_config()])
    }

    /// Writes the configuration and gives its path.
    pub(crate) fn write_config(&self) -> String {
        std::fs::write(self.config_path(), self.toml()).unwrap();
        self.config_path().to_str().expect("a UTF-8 path").to_owned()
    }

    /// Starts the binary with these arguments and waits until it is ready or has ended.
    pub(crate) fn launch(&self, arguments: &[&str]) -> Result<Gateway, Exit> {
        self.spawn(arguments).ready()
    }

    /// Starts the gateway, and does not wait for it.
    pub(crate) fn begin(&self) -> Gateway {
        self.spawn(&["run", "--config", &self.write_config()])
    }

    fn spawn(&self, arguments: &[&str]) -> Gateway {
        let mut lines = self.shell.clone();
        lines.extend(self.file_size_limit.map(|most| format!("trap '' XFSZ; ulimit -f {most}")));
        let mut command = match lines.is_empty() {
            true => Command::new(BINARY),
            false => {
                let mut shell = Command::new("sh");
                let script = format!("set -e; {}; exec \"$0\" \"$@\"", lines.join("; "));
                shell.arg("-c").arg(script).arg(BINARY);
                shell
            }
        };
        command.args(arguments).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the binary starts");
        Gateway::watch(child, self.clone())
    }
}

/// How a process ended that never became ready.
#[derive(Debug)]
pub(crate) struct Exit {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it complained about.
    pub(crate) stderr: String,
}

/// Runs the binary to its end.
pub(crate) fn run(arguments: &[&str]) -> Exit {
    let output = Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
    Exit {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A running gateway. Dropped, it is killed, and must not have panicked.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    setup: Setup,
    lines: Mutex<Receiver<String>>,
    stdout: String,
    stderr: Arc<Mutex<String>>,
    drained: Mutex<Receiver<()>>,
    /// Where clients connect.
    pub(crate) addr: SocketAddr,
    /// Where operators connect.
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    fn watch(mut child: Child, setup: Setup) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (line_sender, lines) = sync_channel(1024);
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if line_sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (drained_sender, drained) = sync_channel(1);
        let mut pipe = child.stderr.take().expect("piped");
        let text = Arc::clone(&stderr);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            let _ = drained_sender.send(());
        });
        let (lines, drained) = (Mutex::new(lines), Mutex::new(drained));
        let stdout = String::new();
        Self { child, setup, lines, stdout, stderr, drained, addr: nowhere, admin: nowhere }
    }

    /// Waits until it is ready or has ended.
    pub(crate) fn ready(mut self) -> Result<Self, Exit> {
        loop {
            let line = self.lines.lock().unwrap().recv_timeout(WAIT_LIMIT);
            match line {
                Ok(line) => {
                    let address = |text: &str| text.parse().expect("an address");
                    if let Some(text) = line.strip_prefix("oncegate: listening on ") {
                        if !text.starts_with("unix:") {
                            self.addr = address(text);
                        }
                    } else if let Some(text) = line.strip_prefix("oncegate: admin on ") {
                        self.admin = address(text);
                    } else if line == "oncegate: ready" {
                        return Ok(self);
                    }
                    self.stdout.push_str(&line);
                    self.stdout.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => panic!("not ready in time: {}", self.stderr()),
                Err(RecvTimeoutError::Disconnected) => {
                    let code = self.wait().code();
                    let stdout = std::mem::take(&mut self.stdout);
                    return Err(Exit { code, stdout, stderr: self.stderr() });
                }
            }
        }
    }

    /// What it has written to stderr so far; all of it once it has ended.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// What it wrote to stdout before it was ready.
    pub(crate) fn stdout(&self) -> &str {
        &self.stdout
    }

    /// What it was started with.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = eventually("the gateway ends", || self.child.try_wait().unwrap());
        let _ = self.drained.lock().unwrap().recv_timeout(WAIT_LIMIT);
        status
    }

    /// Whether the process has ended.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// SIGKILL, and the end of the process.
    #[track_caller]
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    /// SIGTERM; does not wait.
    pub(crate) fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends a signal; does not wait.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Environment variables of the process.
    pub(crate) fn environment(&self) -> String {
        let bytes = std::fs::read(format!("/proc/{}/environ", self.child.id())).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The most memory that it has had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
        kibibytes << 10
    }

    /// Waits until a line of the log holds all of these words, and gives the line.
    #[track_caller]
    pub(crate) fn logs(&self, words: &[&str]) -> String {
        eventually("the line is logged", || {
            let log = self.stderr();
            let mut lines = log.lines();
            lines.find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// SIGSTOP, and waits until it stands still.
    #[track_caller]
    pub(crate) fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
        self.wait_paused();
    }

    /// Waits until it stands still, as at `ONCEGATE_PAUSE_AT`.
    #[track_caller]
    pub(crate) fn wait_paused(&self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        eventually("the gateway stands still", || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            // The state follows the name, which may itself hold a bracket.
            stat.rsplit(") ").next().unwrap().starts_with('T').then_some(())
        });
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Changes how many files the running process may open: `current` now, and `most` at any time.
    pub(crate) fn limit_descriptors(&self, current: u64, most: u64) {
        let limit = Rlimit { current: Some(current), maximum: Some(most) };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limit).unwrap();
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// SIGTERM, and an exit code of 0.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.sigterm();
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.stderr());
    }

    /// Ends the process in order and starts it again on the same store.
    #[track_caller]
    pub(crate) fn restarted(mut self) -> Self {
        self.stop();
        self.setup.clone().start()
    }

    /// Kills the process and starts it again on the same store.
    #[track_caller]
    pub(crate) fn killed_and_restarted(mut self) -> Self {
        self.kill9();
        self.setup.clone().start()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.drained.lock().unwrap().recv_timeout(WAIT_LIMIT);
        let stderr = self.stderr();
        if std::thread::panicking() {
            eprintln!("--- the gateway's stderr ---\n{stderr}\n---");
        } else {
            assert!(!stderr.contains("panicked"), "the gateway panicked:\n{stderr}");
        }
    }
}
