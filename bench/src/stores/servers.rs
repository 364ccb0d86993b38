//! The servers of shared stores, with settings that survive a crash of their machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::process::{Server, free_addresses};
use crate::servers::Place;

/// Where Debian keeps PostgreSQL, a folder for each version.
const POSTGRES: &str = "/usr/lib/postgresql";

/// Who PostgreSQL runs as when the benchmark runs as root, which it refuses.
const UNPRIVILEGED: &str = "postgres";

/// How long PostgreSQL may take until it lets clients in.
const PATIENCE: Duration = Duration::from_secs(20);

/// How they are set, for the report.
pub(super) const SETTINGS: &str = "PostgreSQL as initdb leaves it, Redis with appendonly yes and \
                                   appendfsync always";

/// A server that keeps the records of several gateways.
pub(super) struct StoreServer {
    pub(super) server: Server,
    /// The table that configures a gateway for it.
    pub(super) table: String,
}

/// PostgreSQL as `initdb` leaves it: `fsync`, `full_page_writes` and `synchronous_commit` are on.
/// Each gateway writes over `pool` connections.
pub(super) fn postgres(place: &Place, name: &str, pool: usize) -> Result<StoreServer, Failure> {
    let data = place.path(name);
    let log = fs::File::create(place.path(&format!("{name}-initdb.log")))?;
    let mut install = Command::new("install");
    install.args(["-d", "-m", "700"]);
    if is_root()? {
        install.args(["-o", UNPRIVILEGED]);
    }
    succeed(install.arg(&data), "a directory for PostgreSQL")?;
    let initdb = program("initdb")?;
    let words = as_unprivileged(&[
        &initdb,
        "--pgdata",
        &data,
        "--username",
        "postgres",
        "--auth",
        "trust",
        "--no-locale",
        "--encoding",
        "UTF8",
        "--no-sync",
    ])?;
    let mut init = Command::new(&words[0]);
    init.args(&words[1..]).current_dir("/").stdout(log.try_clone()?).stderr(log);
    succeed(&mut init, "initdb")?;
    let address = free_addresses(1)?[0];
    let port = address.port().to_string();
    let server = program("postgres")?;
    let own = ["listen_addresses=127.0.0.1", "unix_socket_directories="];
    let words = as_unprivileged(&[&server, "-D", &data, "-p", &port, "-c", own[0], "-c", own[1]])?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut server = place.start(name, &words)?;
    server.wait_for(address)?;
    let mut asked = Command::new(program("pg_isready")?);
    asked.args(["--quiet", "--host", "127.0.0.1", "--port", &port]);
    let end = Instant::now() + PATIENCE;
    while !asked.status()?.success() {
        if Instant::now() > end {
            return Err(format!("PostgreSQL takes no connections after {PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let table = format!(
        "[store.postgres]\nurl = \"postgres://postgres@{address}/postgres\"\npool = {pool}"
    );
    Ok(StoreServer { server, table })
}

/// Redis that answers a write when it is on disk.
pub(super) fn redis(place: &Place, name: &str) -> Result<StoreServer, Failure> {
    let data = place.path(name);
    fs::create_dir(&data)?;
    let address = free_addresses(1)?[0];
    let port = address.port().to_string();
    let mut server = place.start(
        name,
        &[
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--dir",
            &data,
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ],
    )?;
    server.wait_for(address)?;
    Ok(StoreServer { server, table: format!("[store.redis]\nurl = \"redis://{address}/0\"") })
}

/// What PostgreSQL says of its version.
pub(super) fn postgres_version() -> String {
    let said =
        program("postgres").and_then(|path| Ok(Command::new(path).arg("--version").output()?));
    said.map_or_else(
        |failure| failure.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// One of PostgreSQL's programs, of the newest version installed.
fn program(name: &str) -> Result<String, Failure> {
    let versions = fs::read_dir(POSTGRES).into_iter().flatten().flatten();
    let newest = versions
        .filter(|version| version.path().join("bin/postgres").is_file())
        .max_by_key(|version| version.file_name().to_str().and_then(|n| n.parse::<u32>().ok()));
    let path: PathBuf = newest
        .ok_or_else(|| {
            format!("PostgreSQL is missing: no {POSTGRES}/*/bin/postgres; install `postgresql`")
        })?
        .path()
        .join("bin")
        .join(name);
    Ok(path.to_string_lossy().into_owned())
}

/// The command, by another user when this process is root.
fn as_unprivileged(words: &[&str]) -> Result<Vec<String>, Failure> {
    let user = ["setpriv", "--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--clear-groups"];
    let before = if is_root()? { &user[..] } else { &[] };
    Ok(before.iter().chain(words).map(|&word| word.to_owned()).collect())
}

fn is_root() -> Result<bool, Failure> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

fn succeed(command: &mut Command, what: &str) -> Result<(), Failure> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("{what}: {:?}: {error}", command.get_program()))?;
    if status.success() { Ok(()) } else { Err(format!("{what}: {command:?}: {status}").into()) }
}
