//! Reaching the server: which hosts, in which order, with which settings, and whether what answers
//! is the primary of the store that was opened.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use uuid::Uuid;

use super::Options;
use super::connection::Link;
use super::error;
use super::session::Session;
use super::tls::Tls;
use crate::shutdown::Tasks;
use crate::store::urls;

/// The oldest server: `MATERIALIZED` came with it.
const OLDEST: i32 = 120_000;

/// The least time for one of several hosts to answer in.
const LEAST_FOR_A_HOST: Duration = Duration::from_millis(500);

/// How long a silent connection is believed before the system asks whether the server is there.
const SILENCE: Duration = Duration::from_secs(15);
const SILENCE_STEP: Duration = Duration::from_secs(5);
const SILENCE_STEPS: u32 = 3;

/// How the server's own limit relates to ours: it answers before we stop listening.
const SERVERS_SHARE: (u32, u32) = (4, 5);

/// What is asked of every connection before it is used.
const PROBE: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), \
     current_setting('server_version_num'), current_setting('fsync', true), \
     current_setting('full_page_writes', true), pg_backend_pid(), \
     (SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid())";

const STORE_ID: &str = "SELECT store_id FROM oncegate.store";

/// Makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    /// One for each host of the URL.
    hosts: Vec<Config>,
    /// The host that answered last.
    first: AtomicUsize,
    tls: Tls,
    connect_timeout: Duration,
    prepared: bool,
    setup: String,
    /// What every connection must belong to, once the store is open.
    store_id: OnceLock<Uuid>,
    tasks: Tasks,
}

impl Connector {
    /// # Errors
    /// What is wrong with the options.
    pub(super) fn new(options: &Options) -> Result<Self, String> {
        let mut config = urls::postgres(&options.url)?;
        let client_cert = options.client_cert.as_ref();
        let tls = Tls::new(
            options.ca.as_deref(),
            client_cert.map(|(chain, key)| (chain.as_path(), key.as_path())),
        );
        if options.ca.is_some() || client_cert.is_some() {
            tls.usable()?;
            // Naming an authority means to be sure of the server.
            if config.get_ssl_mode() == SslMode::Prefer {
                config.ssl_mode(SslMode::Require);
            }
        }
        if config.get_ssl_mode() == SslMode::Require {
            tls.usable()?;
        }
        if config.get_application_name().is_none() {
            config.application_name("oncegate");
        }
        config.connect_timeout(options.connect_timeout);
        config.tcp_user_timeout(options.timeout);
        config.keepalives_idle(SILENCE).keepalives_interval(SILENCE_STEP);
        config.keepalives_retries(SILENCE_STEPS);
        Ok(Self {
            hosts: each_host(&config),
            first: AtomicUsize::new(0),
            tls,
            connect_timeout: options.connect_timeout,
            prepared: options.prepared,
            setup: setup(options.timeout),
            store_id: OnceLock::new(),
            tasks: Tasks::default(),
        })
    }

    /// From now on, a server with another store is refused.
    pub(super) fn pin(&self, store_id: Uuid) {
        // Set once, when the store is opened.
        let _ = self.store_id.set(store_id);
    }

    /// A connection to the first host that is what it should be; bounded by the connect timeout.
    ///
    /// # Errors
    /// One line: why each host was refused.
    pub(super) async fn link(&self, heard: Option<mpsc::Sender<String>>) -> Result<Link, String> {
        let end = Instant::now() + self.connect_timeout;
        let count = self.hosts.len();
        let share = (self.connect_timeout / count as u32).max(LEAST_FOR_A_HOST);
        let first = self.first.load(Ordering::Relaxed);
        let mut refused: Vec<String> = Vec::new();
        for step in 0..count {
            let at = (first + step) % count;
            let until = (Instant::now() + share).min(end);
            let said = match timeout_at(until, self.one(at, heard.clone(), until)).await {
                Ok(Ok(link)) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(link);
                }
                Ok(Err(reason)) => reason,
                Err(_) => format!("no answer within {} ms", share.as_millis()),
            };
            refused.push(format!("PostgreSQL at {}: {said}", name_of(&self.hosts[at])));
        }
        Err(refused.join("; "))
    }

    async fn one(
        &self,
        at: usize,
        heard: Option<mpsc::Sender<String>>,
        end: Instant,
    ) -> Result<Link, String> {
        let connected = self.hosts[at].connect(self.tls.clone()).await;
        let (client, connection) = connected.map_err(|error| advised(&error))?;
        let is_cockroach = connection.parameter("crdb_version").is_some();
        let link = Link::start(client, connection, self.prepared, heard, &self.tasks);
        // A pooler would leave the settings on somebody else's connection.
        let own = self.prepared && !is_cockroach;
        // Both leave at once, and take one way to the server and back.
        let (probed, set) = tokio::join!(link.ask_once(PROBE, &[], end), async {
            if own { link.run(&self.setup, end).await } else { Ok(()) }
        });
        let probed = probed.map_err(|failed| failed.of_question().reason().to_owned())?;
        set.map_err(|failed| failed.of_question().reason().to_owned())?;
        let row = probed.first().ok_or("it does not answer questions")?;
        check(row)?;
        if own {
            link.set_tuned();
            if let Some(session) = Session::of(row, 5, 6) {
                link.set_session(session);
            }
        }
        if let Some(expected) = self.store_id.get() {
            let rows = link.ask_once(STORE_ID, &[], end).await;
            let rows = rows.map_err(|failed| failed.of_question().reason().to_owned())?;
            let found: Option<Uuid> = rows.first().and_then(|row| row.try_get(0).ok());
            if found.as_ref() != Some(expected) {
                let found = found.map_or("none".to_owned(), |id| id.to_string());
                return Err(format!(
                    "its store is {found}, not {expected}, which was opened; restart to open \
                     another store"
                ));
            }
        }
        Ok(link)
    }
}

/// Whether a server may keep a store.
fn check(row: &tokio_postgres::Row) -> Result<(), String> {
    let text = |at: usize| -> Result<Option<String>, String> {
        row.try_get(at).map_err(|error| error::line(&error))
    };
    let version: i32 = text(2)?.and_then(|text| text.parse().ok()).unwrap_or(0);
    if version < OLDEST {
        let major = version / 10_000;
        return Err(format!("it is PostgreSQL {major}; version 12 or later is needed"));
    }
    let in_recovery: bool = row.try_get(0).map_err(|error| error::line(&error))?;
    if in_recovery {
        return Err("it is a standby (in recovery); name the primary in `url`, or all hosts".into());
    }
    if text(1)?.as_deref() == Some("on") {
        return Err("it is read-only (default_transaction_read_only is on)".into());
    }
    for (at, name) in [(3, "fsync"), (4, "full_page_writes")] {
        if text(at)?.as_deref() == Some("off") {
            return Err(format!(
                "{name} is off: a crash of the server would forget claims; switch it on"
            ));
        }
    }
    Ok(())
}

/// What is set on each connection. The limits end what this process no longer waits for. Seldom does
/// a prepared plan fit all sizes of the tables: these make it the one by the indexes, which also
/// locks the rows in the order of their ids.
pub(super) fn setup(timeout: Duration) -> String {
    let (share, whole) = SERVERS_SHARE;
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

/// The URL's configuration for each host alone, so that each has its share of the time: one that takes connections
/// and is silent would use it up.
fn each_host(config: &Config) -> Vec<Config> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let count = hosts.len().max(addresses.len());
    let ports = config.get_ports();
    let one = |at: usize| {
        let mut one = Config::new();
        match hosts.get(at) {
            Some(Host::Tcp(name)) => _ = one.host(name),
            #[cfg(unix)]
            Some(Host::Unix(path)) => _ = one.host_path(path),
            None => {}
        }
        addresses.get(at).map(|address| one.hostaddr(*address));
        ports.get(at).or(ports.first()).map(|port| one.port(*port));
        config.get_user().map(|user| one.user(user));
        config.get_password().map(|password| one.password(password));
        config.get_dbname().map(|name| one.dbname(name));
        config.get_options().map(|options| one.options(options));
        config.get_application_name().map(|name| one.application_name(name));
        config.get_connect_timeout().map(|timeout| one.connect_timeout(*timeout));
        config.get_tcp_user_timeout().map(|timeout| one.tcp_user_timeout(*timeout));
        config.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
        config.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
        one.keepalives(config.get_keepalives()).keepalives_idle(config.get_keepalives_idle());
        one.ssl_mode(config.get_ssl_mode()).ssl_negotiation(config.get_ssl_negotiation());
        // Whether it is the primary is asked of every connection anyway.
        one.channel_binding(config.get_channel_binding());
        one
    };
    (0..count).map(one).collect()
}

/// Host and port, for messages.
fn name_of(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(name)), _) => format!("{name}:{port}"),
        #[cfg(unix)]
        (Some(Host::Unix(path)), _) => format!("{}:{port}", path.display()),
        (None, Some(address)) => format!("{address}:{port}"),
        (None, None) => format!("port {port}"),
    }
}

fn advised(error: &tokio_postgres::Error) -> String {
    let line = error::line(error);
    if line.contains("certificate") {
        return format!(
            "{line}; name its authority in `ca`, or choose `sslmode=disable` on a network of your own"
        );
    }
    line
}
