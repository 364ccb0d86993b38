//! One Redis server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::certificates::Certificates;
use super::place::{Place, free_port, other_version};
use super::process::{Process, run};

/// Where Debian puts the programs, and where a build from source does.
const INSTALLED: [&str; 2] = ["/usr/bin", "/usr/local/bin"];

/// Databases of the shared server: one for each test.
const DATABASES: u32 = 10_000;

/// Starts on other ports, when one was taken since it was found free.
const PORT_TRIES: u32 = 20;

/// A Redis server with its data; killed and removed when dropped.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Process,
    port: u16,
    /// Where the other nodes of a cluster connect to.
    bus: Option<u16>,
    password: Option<String>,
    ca: Option<PathBuf>,
    /// Whether it watches others.
    sentinel: bool,
    databases: AtomicU32,
    place: Place,
}

impl Redis {
    /// Starts a server that syncs every write; `settings` go to its `redis.conf` as they stand and
    /// win over the defaults. With `requirepass` among them, it asks for that password.
    /// With `sentinel` among them, it is a Sentinel.
    ///
    /// # Panics
    /// When Redis is not installed or does not start: with its log.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::begin(Place::new("redis", None), settings, None)
    }

    /// Starts a server that speaks only TLS, with a certificate for 127.0.0.1 by [`Self::ca`].
    pub(crate) fn start_tls(settings: &[(&str, &str)]) -> Self {
        let place = Place::new("redis", None);
        let files = Certificates::issue(&place, None);
        let [certificate, key, ca] = [&files.certificate, &files.key, &files.ca]
            .map(|path| path.to_str().expect("a plain path"));
        let mut all = vec![
            ("tls-cert-file", certificate),
            ("tls-key-file", key),
            ("tls-ca-cert-file", ca),
            ("tls-auth-clients", "no"),
        ];
        all.extend(settings);
        Self::begin(place, &all, Some(files.ca.clone()))
    }

    /// The one server of this test process. A test takes a database of its own with
    /// [`Self::fresh_url`]; channels are the server's, not the database's, and `FLUSHALL`,
    /// `CONFIG SET` and faults need a server of their own.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[("databases", &DATABASES.to_string())]))
    }

    /// Starts a server in `place`.
    fn begin(place: Place, settings: &[(&str, &str)], ca: Option<PathBuf>) -> Self {
        let mut text = format!(
            "bind 127.0.0.1\ndir {dir}\nunixsocket {socket}\nappendonly yes\nappendfsync always\n\
             save \"\"\nrepl-diskless-sync-delay 0\nproc-title-template \"{{title}} {{config-file}}\"\n",
            dir = place.path().display(),
            socket = socket(&place).display(),
        );
        for (name, value) in settings {
            text.push_str(&format!("{name} {value}\n"));
        }
        place.write("redis.conf", &text, None);
        let password = settings.iter().find(|(name, _)| *name == "requirepass");
        let password = password.map(|(_, value)| (*value).to_owned());
        let process = Process::new(place.tag().clone(), place.path().join("log"));
        let databases = AtomicU32::new(0);
        let in_cluster = settings.contains(&("cluster-enabled", "yes"));
        let sentinel = settings.iter().any(|(name, _)| *name == "sentinel");
        let mut server =
            Self { process, port: 0, bus: None, password, ca, sentinel, databases, place };
        for _ in 0..PORT_TRIES {
            server.port = free_port();
            server.bus = in_cluster.then(free_port);
            match server.run_process() {
                Ok(()) => return server,
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("Redis does not start: {log}"),
            }
        }
        panic!("Redis found no free port in {PORT_TRIES} tries")
    }

    fn run_process(&self) -> Result<(), String> {
        let mut command = Command::new(binary("redis-server"));
        command.arg(self.place.path().join("redis.conf"));
        let port = self.port.to_string();
        match self.ca {
            None => command.args(["--port", &port]),
            Some(_) => command.args(["--port", "0", "--tls-port", &port]),
        };
        if self.sentinel {
            command.arg("--sentinel");
        }
        if let Some(bus) = self.bus {
            command.args(["--cluster-port", &bus.to_string()]);
        }
        self.process.start(command, || match self.try_cli(&["PING"]) {
            Ok(answer) if answer == "PONG" => Ok(()),
            Ok(other) | Err(other) => Err(other),
        })
    }

    /// The directory of the server. Its data and `redis.conf`, and what it prints in `log`.
    pub(crate) fn dir(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where the other nodes of its cluster connect to.
    pub(super) fn bus(&self) -> Option<u16> {
        self.bus
    }

    /// Whether it was started and neither stopped nor killed since.
    pub(crate) fn runs(&self) -> bool {
        self.process.runs()
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The URL of database 0, with the password if there is one.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.addr(), 0)
    }

    /// The URL of a database through another address, such as a proxy's.
    pub(crate) fn url_at(&self, addr: SocketAddr, database: u32) -> String {
        let scheme = if self.ca.is_some() { "rediss" } else { "redis" };
        let user =
            self.password.as_ref().map_or_else(String::new, |word| format!("default:{word}@"));
        format!("{scheme}://{user}{addr}/{database}")
    }

    /// The number of a database that no other test was given.
    pub(crate) fn fresh_database(&self) -> u32 {
        // Database 0 is left to those who name none.
        let number = self.databases.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(number < DATABASES, "all {DATABASES} databases are given out");
        number
    }

    /// The URL of [`Self::fresh_database`]. For the [`Self::shared`] server.
    pub(crate) fn fresh_url(&self) -> String {
        self.url_at(self.addr(), self.fresh_database())
    }

    /// The certificate authority's file, of a server started with TLS.
    pub(crate) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Runs a command with `redis-cli`; the answer's values a line each. `-n 7` first: database 7.
    ///
    /// # Panics
    /// When the answer is an error, or there is none.
    #[track_caller]
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    /// Like [`Self::cli`].
    ///
    /// # Errors
    /// What the server says, or that there was no answer in time.
    pub(crate) fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        let mut cli = Command::new(binary("redis-cli"));
        cli.arg("-s").arg(socket(&self.place)).args(["-e", "--no-auth-warning"]).args(args);
        if let Some(password) = &self.password {
            cli.env("REDISCLI_AUTH", password);
        }
        run(&mut cli)
    }

    /// Runs a command as a client of a URL does: over TCP, with its password and certificates.
    ///
    /// # Errors
    /// What the server says, or that there was no answer in time.
    pub(crate) fn try_cli_at(&self, url: &str, args: &[&str]) -> Result<String, String> {
        let mut cli = Command::new(binary("redis-cli"));
        cli.args(["-u", url, "-e", "--no-auth-warning"]);
        if let Some(ca) = &self.ca {
            cli.arg("--cacert").arg(ca);
        }
        run(cli.args(args))
    }

    /// Ends the server with its data written.
    pub(crate) fn stop(&self) {
        self.process.stop(Signal::TERM);
    }

    /// SIGKILL to the server and its children.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// SIGSTOP: connections stay, nothing answers.
    pub(crate) fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT after [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.process.resume();
    }

    /// Starts it again on the same port and data, after a stop if it runs. Ready when it returns.
    pub(crate) fn restart(&self) {
        self.stop();
        self.run_process().unwrap_or_else(|log| panic!("Redis does not start again: {log}"));
    }

    /// The end of what the server printed.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

/// Not in the place itself: a command line with that in it would count as the server's.
fn socket(place: &Place) -> PathBuf {
    place.sockets().join("redis.sock")
}

/// Names a directory with the programs of another version, or of Valkey by Redis' names; those it
/// lacks are Debian's.
const OTHER_VERSION: &str = "ONCEGATE_TEST_REDIS_BIN";

fn binary(name: &str) -> PathBuf {
    let debian = INSTALLED.iter().map(|folder| Path::new(folder).join(name));
    let mut paths = other_version(OTHER_VERSION, name).into_iter().chain(debian);
    paths.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("Redis is missing: no {name} in {INSTALLED:?}; install Debian's package `redis-server`, as .ci/test does")
    })
}
