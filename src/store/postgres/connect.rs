//! Connecting to the server: hosts in order, session settings, and the check that a server is the
//! primary of the opened store.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::connection::PostgresConnection;
use super::error::{StatementError, line};
use super::options::PostgresOptions;
use super::session::ServerSession;
use super::tls::ServerTls;
use crate::store::urls;

/// Oldest supported server version, the first with `MATERIALIZED`.
const OLDEST_VERSION: i32 = 120_000;

/// Minimum time limit for each of several hosts.
const MIN_HOST_TIMEOUT: Duration = Duration::from_millis(500);

/// TCP keepalive: silence before the first probe, interval between probes, and number of probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Server's statement timeout as a fraction of the client's: the server answers first.
const SERVER_TIMEOUT_SHARE: (u32, u32) = (4, 5);

/// Query that checks every new connection.
const PROBE: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), \
     current_setting('server_version_num'), current_setting('fsync', true), \
     current_setting('full_page_writes', true), pg_backend_pid(), \
     (SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid())";

const STORE_ID: &str = "SELECT store_id FROM oncegate.store";

/// Makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    /// Configuration per host of the URL.
    hosts: Vec<Config>,
    /// Index of the host that answered last, to be tried first.
    first: AtomicUsize,
    tls: ServerTls,
    connect_timeout: Duration,
    prepared: bool,
    settings: String,
    /// Identity to require of every server, once the store is open.
    store_id: OnceLock<Uuid>,
    tasks: TaskTracker,
}

impl Connector {
    /// A connector for the hosts of the URL.
    ///
    /// # Errors
    /// The defect of the options.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, String> {
        let mut config = urls::postgres(&options.url)?;
        let client_cert = options.client_cert.as_ref();
        let tls = ServerTls::new(
            options.ca.as_deref(),
            client_cert.map(|(chain, key)| (chain.as_path(), key.as_path())),
        )?;
        if options.ca.is_some() || client_cert.is_some() {
            tls.check()?;
            // A configured authority implies that the server must prove its identity.
            if config.get_ssl_mode() == SslMode::Prefer {
                config.ssl_mode(SslMode::Require);
            }
        }
        if config.get_ssl_mode() == SslMode::Require {
            tls.check()?;
        }
        if config.get_application_name().is_none() {
            config.application_name("oncegate");
        }
        config.connect_timeout(options.connect_timeout);
        config.tcp_user_timeout(options.timeout);
        config.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL);
        config.keepalives_retries(KEEPALIVE_RETRIES);
        Ok(Self {
            hosts: split_hosts(&config),
            first: AtomicUsize::new(0),
            tls,
            connect_timeout: options.connect_timeout,
            prepared: options.prepared,
            settings: session_settings(options.timeout),
            store_id: OnceLock::new(),
            tasks: TaskTracker::default(),
        })
    }

    /// Makes every later connection reject servers with a different store.
    pub(super) fn pin(&self, store_id: Uuid) {
        // Set once, when the store is opened.
        let _ = self.store_id.set(store_id);
    }

    /// Connects to the first suitable host, within the connect timeout.
    ///
    /// # Errors
    /// Single-line list of the reason for each rejected host.
    pub(super) async fn connect(
        &self,
        inbox: Option<mpsc::Sender<String>>,
    ) -> Result<PostgresConnection, String> {
        let deadline = Instant::now() + self.connect_timeout;
        let count = self.hosts.len();
        let share = (self.connect_timeout / count as u32).max(MIN_HOST_TIMEOUT);
        let first = self.first.load(Ordering::Relaxed);
        let mut rejections: Vec<String> = Vec::new();
        for step in 0..count {
            let at = (first + step) % count;
            let until = (Instant::now() + share).min(deadline);
            let attempt = self.connect_to(at, inbox.clone(), until);
            let reason = match timeout_at(until, attempt).await {
                Ok(Ok(connection)) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok(Err(reason)) => reason,
                Err(_) => format!("no answer within {} ms", share.as_millis()),
            };
            rejections.push(format!("PostgreSQL at {}: {reason}", address_of(&self.hosts[at])));
        }
        Err(rejections.join("; "))
    }

    async fn connect_to(
        &self,
        host: usize,
        inbox: Option<mpsc::Sender<String>>,
        deadline: Instant,
    ) -> Result<PostgresConnection, String> {
        let connected = self.hosts[host].connect(self.tls.connector.clone()).await;
        let (client, connection) = connected.map_err(|error| self.with_remedy(&error))?;
        let is_cockroach = connection.parameter("crdb_version").is_some();
        let connection =
            PostgresConnection::start(client, connection, self.prepared, inbox, &self.tasks);
        // Behind a pooler the settings would stick to a server connection of other clients.
        let configures = self.prepared && !is_cockroach;
        // Pipelined: probe and settings share one round trip.
        let (probe, set) = tokio::join!(connection.query_unprepared(PROBE, &[], deadline), async {
            if configures { connection.execute(&self.settings, deadline).await } else { Ok(()) }
        });
        let probe = probe.map_err(StatementError::reason)?;
        set.map_err(StatementError::reason)?;
        let row = probe.first().ok_or("the server returned no row for a query")?;
        check_server(row)?;
        if configures {
            connection.set_configured();
            if let Some(session) = ServerSession::of(row, 5, 6) {
                connection.set_session(session);
            }
        }
        if let Some(expected) = self.store_id.get() {
            check_store(&connection, expected, deadline).await?;
        }
        Ok(connection)
    }

    fn with_remedy(&self, error: &tokio_postgres::Error) -> String {
        let line = line(error);
        if !line.contains("certificate") {
            return line;
        }
        match self.tls.check() {
            Ok(()) => format!(
                "{line}; name its authority in `ca`, or choose `sslmode=disable` on a network of \
                 your own"
            ),
            Err(defect) => format!("{line}; {defect}"),
        }
    }
}

/// Checks the identity of the server's store.
async fn check_store(
    connection: &PostgresConnection,
    expected: &Uuid,
    deadline: Instant,
) -> Result<(), String> {
    let rows = connection.query_unprepared(STORE_ID, &[], deadline).await;
    let rows = rows.map_err(StatementError::reason)?;
    let found: Option<Uuid> = rows.first().and_then(|row| row.try_get(0).ok());
    if found.as_ref() == Some(expected) {
        return Ok(());
    }
    let found = found.map_or("none".to_owned(), |id| id.to_string());
    Err(format!(
        "the server's store is {found}, not {expected}, which was opened; restart to open another \
         store"
    ))
}

/// Checks the probe's row: version, role and durability of the server.
fn check_server(row: &tokio_postgres::Row) -> Result<(), String> {
    let text = |at: usize| -> Result<Option<String>, String> {
        row.try_get(at).map_err(|error| line(&error))
    };
    let version: i32 = text(2)?.and_then(|text| text.parse().ok()).unwrap_or(0);
    if version < OLDEST_VERSION {
        let major = version / 10_000;
        return Err(format!("the server is PostgreSQL {major}; version 12 or later is needed"));
    }
    let in_recovery: bool = row.try_get(0).map_err(|error| line(&error))?;
    if in_recovery {
        return Err(
            "the server is a standby (in recovery); name the primary in `url`, or all hosts"
                .to_owned(),
        );
    }
    if text(1)?.as_deref() == Some("on") {
        return Err("the server is read-only (default_transaction_read_only is on)".to_owned());
    }
    for (at, name) in [(3, "fsync"), (4, "full_page_writes")] {
        if text(at)?.as_deref() == Some("off") {
            return Err(format!(
                "{name} is off: a crash of the server would lose claims; switch it on"
            ));
        }
    }
    Ok(())
}

/// Session settings of a connection.
///
/// The time limits end statements without a waiting caller. A generic plan seldom fits the tables
/// at every size: the planner settings fix the plan to the indexes, which also makes every session
/// lock rows in the order of their ids.
pub(super) fn session_settings(timeout: Duration) -> String {
    let (share, whole) = SERVER_TIMEOUT_SHARE;
    let limit = (timeout * share / whole).as_millis().max(1);
    let idle = (timeout * 2).as_millis().max(1);
    format!(
        "SET statement_timeout = {limit}; SET lock_timeout = {limit}; \
         SET idle_in_transaction_session_timeout = {idle}; \
         SET default_transaction_isolation = 'read committed'; \
         SET plan_cache_mode = force_generic_plan; \
         SET enable_seqscan = off; SET enable_bitmapscan = off; \
         SET enable_nestloop = off; SET jit = off"
    )
}

/// Splits the URL's configuration into one per host, so that every host has a share of the time: a
/// host that accepts connections and stays silent would use up the whole timeout.
fn split_hosts(config: &Config) -> Vec<Config> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let count = hosts.len().max(addresses.len());
    let ports = config.get_ports();
    let host_config = |at: usize| {
        let mut host = Config::new();
        match hosts.get(at) {
            Some(Host::Tcp(name)) => _ = host.host(name),
            #[cfg(unix)]
            Some(Host::Unix(path)) => _ = host.host_path(path),
            None => {}
        }
        addresses.get(at).map(|address| host.hostaddr(*address));
        ports.get(at).or(ports.first()).map(|port| host.port(*port));
        config.get_user().map(|user| host.user(user));
        config.get_password().map(|password| host.password(password));
        config.get_dbname().map(|name| host.dbname(name));
        config.get_options().map(|options| host.options(options));
        config.get_application_name().map(|name| host.application_name(name));
        config.get_connect_timeout().map(|timeout| host.connect_timeout(*timeout));
        config.get_tcp_user_timeout().map(|timeout| host.tcp_user_timeout(*timeout));
        config.get_keepalives_interval().map(|interval| host.keepalives_interval(interval));
        config.get_keepalives_retries().map(|retries| host.keepalives_retries(retries));
        host.keepalives(config.get_keepalives()).keepalives_idle(config.get_keepalives_idle());
        host.ssl_mode(config.get_ssl_mode()).ssl_negotiation(config.get_ssl_negotiation());
        // `target_session_attrs` is left out: the probe checks for the primary.
        host.channel_binding(config.get_channel_binding());
        host
    };
    (0..count).map(host_config).collect()
}

/// Host and port for messages.
fn address_of(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(name)), _) => format!("{name}:{port}"),
        #[cfg(unix)]
        (Some(Host::Unix(path)), _) => format!("{}:{port}", path.display()),
        (None, Some(address)) => format!("{address}:{port}"),
        (None, None) => format!("port {port}"),
    }
}
