//! One PostgreSQL server.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use rustix::process::Signal;

use super::certificates::Certificates;
use super::place::{Owner, Place, free_port, other_version};
use super::process::{Process, run};

/// Where Debian keeps the servers, a folder for each version.
const INSTALLED: &str = "/usr/lib/postgresql";

/// The superuser of every server; over TCP it needs the password.
pub(super) const USER: &str = "postgres";
pub(super) const PASSWORD: &str = "not-a-secret";

/// Starts on other ports, when one was taken since it was found free.
const PORT_TRIES: u32 = 20;

/// What `initdb` makes, once for this process; each server begins with a copy.
static TEMPLATE: LazyLock<Place> = LazyLock::new(template);

/// A PostgreSQL server with its data; killed and removed when dropped.
///
/// Over TCP it asks for a password (SCRAM), `fsync` is on as by default.
#[derive(Debug)]
pub(crate) struct Postgres {
    process: Process,
    port: u16,
    databases: AtomicU32,
    ca: Option<PathBuf>,
    place: Place,
}

impl Postgres {
    /// Starts a server; `settings` go to its `postgresql.conf`.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start: with its log.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::begin(Self::copied(), settings, None)
    }

    /// Starts a server that takes TCP connections only with TLS, with a certificate for 127.0.0.1 by
    /// [`Self::ca`]. Its URLs are the same: the client says how far it checks.
    pub(crate) fn start_tls(settings: &[(&str, &str)]) -> Self {
        let place = Self::copied();
        let owner = Owner::unprivileged();
        let access = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        place.write("data/pg_hba.conf", access, owner);
        let files = Certificates::issue(&place, owner);
        let [certificate, key] =
            [&files.certificate, &files.key].map(|path| path.to_str().expect("a plain path"));
        let mut all = vec![("ssl", "on"), ("ssl_cert_file", certificate), ("ssl_key_file", key)];
        all.extend(settings);
        Self::begin(place, &all, Some(files.ca.clone()))
    }

    /// The one server of this test process: take a database of its own from it with
    /// [`Self::create_database`], and leave its settings alone.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[("max_connections", "400")]))
    }

    /// A directory with a fresh copy of the template's data.
    fn copied() -> Place {
        let owner = Owner::unprivileged();
        let place = Place::new("pg", owner);
        let mut copy = Command::new("/bin/cp");
        copy.arg("-a").arg(TEMPLATE.path().join("data")).arg(place.path().join("data"));
        Owner::runs(owner, &mut copy);
        run(&mut copy).expect("a copy of the template");
        place
    }

    /// Starts a server on the data in `place`.
    pub(super) fn begin(place: Place, settings: &[(&str, &str)], ca: Option<PathBuf>) -> Self {
        let conf = place.path().join("data/postgresql.conf");
        let sockets = place.sockets().to_str().expect("a plain path").to_owned();
        let fixed = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", sockets.as_str()),
            // In the title of every child: see `Tag`.
            ("cluster_name", place.tag().as_str()),
            // A killed server leaves nothing behind in /dev/shm.
            ("dynamic_shared_memory_type", "mmap"),
        ];
        let mut text = std::fs::read_to_string(&conf).expect("a postgresql.conf");
        for (name, value) in fixed.iter().chain(settings) {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        std::fs::write(&conf, text).expect("a writable postgresql.conf");
        let process = Process::new(place.tag().clone(), place.path().join("log"));
        let mut server = Self { process, port: 0, databases: AtomicU32::new(1), ca, place };
        for _ in 0..PORT_TRIES {
            server.port = free_port();
            match server.run_process() {
                Ok(()) => return server,
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("PostgreSQL does not start: {log}"),
            }
        }
        panic!("PostgreSQL found no free port in {PORT_TRIES} tries")
    }

    fn run_process(&self) -> Result<(), String> {
        let mut command = Command::new(binary("postgres"));
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        Owner::runs(Owner::unprivileged(), &mut command);
        let socket = self.sockets().join(format!(".s.PGSQL.{}", self.port));
        self.process.start(command, || ready(&socket))
    }

    fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    /// The directory of the Unix sockets, where no password is asked.
    pub(super) fn sockets(&self) -> &Path {
        self.place.sockets()
    }

    /// The directory of the server. Its data is in `data`, what it prints in `log`.
    pub(crate) fn dir(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The superuser's URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_at(self.addr(), database)
    }

    /// The same through another address, such as a proxy's.
    pub(crate) fn url_at(&self, addr: SocketAddr, database: &str) -> String {
        format!("postgresql://{USER}:{PASSWORD}@{addr}/{database}")
    }

    /// The certificate authority's file, of a server started with TLS.
    pub(crate) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Creates a database of its own for a test and gives its name.
    pub(crate) fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run_sql(&format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs SQL as superuser in the database `postgres`; see [`Self::run_sql_in`].
    #[track_caller]
    pub(crate) fn run_sql(&self, sql: &str) -> String {
        self.run_sql_in("postgres", sql)
    }

    /// Runs SQL as superuser; gives the rows, a line each, columns split by `|`.
    ///
    /// # Panics
    /// When a statement fails: with the server's message.
    #[track_caller]
    pub(crate) fn run_sql_in(&self, database: &str, sql: &str) -> String {
        self.try_sql_in(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Like [`Self::run_sql_in`]. Several statements are one transaction.
    ///
    /// # Errors
    /// What the server says, or that there was no end in time.
    pub(crate) fn try_sql_in(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = psql(database, sql);
        self.by_socket(&mut psql);
        run(&mut psql)
    }

    /// Runs SQL as a client of a URL does: over TCP, with its user and password.
    ///
    /// # Errors
    /// What the server says, or that there was no end in time.
    pub(crate) fn try_sql_at(url: &str, sql: &str) -> Result<String, String> {
        run(&mut psql(url, sql))
    }

    /// A database as `pg_dump` writes it.
    pub(crate) fn dump(&self, database: &str) -> String {
        let mut dump = Command::new(binary("pg_dump"));
        dump.args(["-d", database]);
        self.by_socket(&mut dump);
        run(&mut dump).expect("a dump")
    }

    /// Makes a client program connect to this server as superuser. By environment: a command line
    /// with the server's directory would count as one of its processes.
    pub(super) fn by_socket(&self, command: &mut Command) {
        command
            .env("PGHOST", self.sockets())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", USER)
            .current_dir("/");
    }

    /// Ends the server, connections and all, with its data written ("fast" shutdown).
    pub(crate) fn stop(&self) {
        self.process.stop(Signal::INT);
    }

    /// SIGKILL to every process of the server at once.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// SIGSTOP to every process of the server: connections stay, nothing answers.
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
        self.run_process().unwrap_or_else(|log| panic!("PostgreSQL does not start again: {log}"));
    }

    /// Makes a standby the primary.
    pub(crate) fn promote(&self) {
        let promoted = self.run_sql("SELECT pg_promote(true, 25)");
        assert_eq!(promoted, "t", "the standby was not promoted\n{}", self.log());
    }

    /// The end of what the server printed.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        // The system has only a few thousand segments, and a killed server leaves its own.
        let lock = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        if let Some(id) = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            _ = run(Command::new("ipcrm").args(["-m", id]));
        }
    }
}

/// Names a directory with the programs of another version; those it lacks are Debian's.
const OTHER_VERSION: &str = "ONCEGATE_TEST_POSTGRES_BIN";

/// One of PostgreSQL's programs, of the newest version installed.
pub(super) fn binary(name: &str) -> PathBuf {
    if let Some(program) = other_version(OTHER_VERSION, name) {
        return program;
    }
    let versions = std::fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let newest =
        versions.filter(|version| version.path().join("bin/postgres").is_file()).max_by_key(
            |version| version.file_name().to_str().and_then(|name| name.parse::<u32>().ok()),
        );
    let newest = newest.unwrap_or_else(|| {
        panic!("PostgreSQL is missing: no {INSTALLED}/*/bin/postgres; install Debian's package `postgresql`, as .ci/test does")
    });
    newest.path().join("bin").join(name)
}

fn psql(database: &str, sql: &str) -> Command {
    let mut psql = Command::new(binary("psql"));
    psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
    psql
}

fn template() -> Place {
    let owner = Owner::unprivileged();
    let place = Place::new("pg", owner);
    let password = place.write("password", PASSWORD, owner);
    let mut initdb = Command::new(binary("initdb"));
    initdb
        .arg("-D")
        .arg(place.path().join("data"))
        .args(["--username", USER, "--pwfile"])
        .arg(password)
        .args(["--auth-local", "trust", "--auth-host", "scram-sha-256"])
        .args(["--no-sync", "--encoding", "UTF8", "--no-locale"])
        // Spares the search for the machine's time zone.
        .env("TZ", "UTC")
        .current_dir("/");
    Owner::runs(owner, &mut initdb);
    run(&mut initdb).unwrap_or_else(|error| panic!("no PostgreSQL data: {error}"));
    place
}

/// Whether the server takes a connection: it answers a start-up message with anything but an error.
fn ready(socket: &Path) -> Result<(), String> {
    const VERSION_3: u32 = 196_608;
    const ONE_LOOK: Duration = Duration::from_secs(1);
    let body = format!("user\0{USER}\0database\0postgres\0\0");
    let length = u32::try_from(body.len() + 8).expect("a short message");
    let mut message = length.to_be_bytes().to_vec();
    message.extend(VERSION_3.to_be_bytes());
    message.extend(body.as_bytes());
    let mut answer = [0];
    let mut asked = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ONE_LOOK))?;
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)
    };
    asked().map_err(|error| format!("{}: {error}", socket.display()))?;
    if answer == *b"R" { Ok(()) } else { Err("takes no connections yet".to_owned()) }
}
