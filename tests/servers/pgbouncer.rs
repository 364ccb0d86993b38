//! A PgBouncer before a PostgreSQL server.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use super::place::{Owner, Place, free_port};
use super::postgres::{PASSWORD, Postgres, USER};
use super::process::Process;

/// Where Debian puts it, and where a build from source does.
const INSTALLED: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];

/// Starts on other ports, when one was taken since it was found free.
const PORT_TRIES: u32 = 20;

/// A pooler that gives each transaction any of its connections; ended and removed when dropped.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    process: Process,
    port: u16,
    place: Place,
}

impl PgBouncer {
    /// Starts one in transaction mode, for every database of `server`; `settings` go to its section
    /// `pgbouncer`.
    ///
    /// # Panics
    /// When PgBouncer is not installed or does not start: with its log.
    pub(crate) fn start(server: &Postgres, settings: &[(&str, &str)]) -> Self {
        Self::start_before(server.addr(), settings)
    }

    /// The same before a server at another address, such as a proxy's.
    pub(crate) fn start_before(server: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let owner = Owner::unprivileged();
        let place = Place::new("pgbouncer", owner);
        let users = place.write("users.txt", &format!("\"{USER}\" \"{PASSWORD}\"\n"), owner);
        let process = Process::new(place.tag().clone(), place.path().join("log"));
        let mut pooler = Self { process, port: 0, place };
        for _ in 0..PORT_TRIES {
            pooler.port = free_port();
            let mut text = format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\n\
                 pool_mode = transaction\nserver_login_retry = 1\n",
                server.port(),
                pooler.port,
                users.display(),
            );
            for (name, value) in settings {
                text.push_str(&format!("{name} = {value}\n"));
            }
            pooler.place.write("pgbouncer.ini", &text, owner);
            match pooler.run_process() {
                Ok(()) => return pooler,
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("PgBouncer does not start: {log}"),
            }
        }
        panic!("PgBouncer found no free port in {PORT_TRIES} tries")
    }

    fn run_process(&self) -> Result<(), String> {
        let mut command = Command::new(binary());
        command.arg(self.place.path().join("pgbouncer.ini"));
        // It refuses root, too.
        Owner::runs(Owner::unprivileged(), &mut command);
        self.process
            .start(command, || TcpStream::connect(self.addr()).map(drop).map_err(|e| e.to_string()))
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// SIGKILL: its clients and its server see their connections end.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again on the same port, after a kill if it runs.
    pub(crate) fn restart(&self) {
        self.kill();
        self.run_process().unwrap_or_else(|log| panic!("PgBouncer does not start again: {log}"));
    }
}

fn binary() -> std::path::PathBuf {
    let mut paths = INSTALLED.iter().map(|folder| Path::new(folder).join("pgbouncer"));
    paths.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("PgBouncer is missing: none in {INSTALLED:?}; install Debian's package `pgbouncer`, as .ci/test does")
    })
}
