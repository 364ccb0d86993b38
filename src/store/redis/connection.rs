//! A connection to a server: connecting, logging in and sending commands.
//!
//! No retries happen here. A command may have been executed although the connection failed, and
//! only the caller knows whether a second execution is harmless.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, ErrorKind, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo,
    RedisError, Value,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::address::ServerAddress;
use super::error;
use crate::store::urls::{self, RedisUrl};

/// Login, TLS and time limit of a connection. Never printed, because of the password.
#[derive(Clone)]
pub(super) struct ConnectionSettings {
    user: RedisConnectionInfo,
    tls: Option<Arc<ClientConfig>>,
    connect_timeout: Duration,
}

impl ConnectionSettings {
    pub(super) fn database(&self) -> i64 {
        self.user.db()
    }

    /// Time limit for TCP, TLS, login and checks together.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Settings for a Sentinel, without database, and without password where Sentinels have none.
    pub(super) fn for_sentinel(&self, with_password: bool) -> Self {
        let user = if with_password {
            self.user.clone().set_db(0)
        } else {
            RedisConnectionInfo::default().set_skip_set_lib_name()
        };
        Self { user, ..self.clone() }
    }
}

/// Reads a URL, as [`urls::redis`] does.
///
/// # Errors
/// A line of text without the password.
pub(super) fn parse_url(
    url: &str,
    tls: Option<&Arc<ClientConfig>>,
    connect_timeout: Duration,
) -> Result<(ServerAddress, ConnectionSettings), String> {
    let RedisUrl { host, port, user, secure } = urls::redis(url)?;
    let address = ServerAddress { host, port };
    let tls = tls.filter(|_| secure).cloned();
    Ok((address, ConnectionSettings { user, tls, connect_timeout }))
}

/// A connection shared by several callers; replies arrive in the order of the commands.
pub(super) struct RedisConnection {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    identity: OnceLock<ClientIdentity>,
}

/// The server's view of a connection: client id and client address.
#[derive(Debug, Clone)]
pub(super) struct ClientIdentity {
    id: String,
    addr: String,
}

impl ClientIdentity {
    /// Reads the reply to `CLIENT INFO`.
    fn parse(info: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = info.split_whitespace().find_map(|field| field.strip_prefix(name));
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        Some(Self { id: field("id=")?, addr: field("addr=")? })
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

impl RedisConnection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// A line of text.
    pub(super) async fn open(
        address: &ServerAddress,
        settings: &ConnectionSettings,
    ) -> Result<Self, String> {
        let config = AsyncConnectionConfig::new();
        let user = settings.user.clone().set_protocol(ProtocolVersion::RESP2);
        Self::establish(address, settings, user, config).await
    }

    /// Connects for subscriptions; pushed messages go to `on_push`.
    ///
    /// # Errors
    /// A line of text.
    pub(super) async fn open_subscriber(
        address: &ServerAddress,
        settings: &ConnectionSettings,
        on_push: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let config = AsyncConnectionConfig::new().set_push_sender(on_push);
        let user = settings.user.clone().set_protocol(ProtocolVersion::RESP3);
        Self::establish(address, settings, user, config).await
    }

    async fn establish(
        address: &ServerAddress,
        settings: &ConnectionSettings,
        user: RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Self, String> {
        // No limit of the client library: callers bound their waits, and know what a timeout means.
        let config = config.set_response_timeout(None);
        let opening = async {
            let stream = connect(address, settings).await?;
            MultiplexedConnection::new_with_config(&user, stream, config)
                .await
                .map_err(|error| error::login_failed(address, &error))
        };
        let limit = settings.connect_timeout;
        let (connection, driver) = tokio::time::timeout(limit, opening)
            .await
            .map_err(|_| error::unreachable(address, &error::no_answer(limit)))??;
        #[expect(clippy::disallowed_methods, reason = "aborted when its connection is dropped")]
        let driver = tokio::spawn(driver).abort_handle();
        Ok(Self { connection, driver, identity: OnceLock::new() })
    }

    /// Asks for the server's view of this connection, for a later `CLIENT KILL` by a successor.
    ///
    /// # Errors
    /// The connection was lost.
    pub(super) async fn fetch_identity(&self) -> Result<(), String> {
        let mut info = Pipeline::new();
        info.cmd("CLIENT").arg("INFO");
        let text = match self.send(&info).await?.pop() {
            Some(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Some(Value::VerbatimString { text, .. }) => text,
            _ => String::new(),
        };
        if let Some(identity) = ClientIdentity::parse(&text) {
            // Fetched once, when the connection is made.
            let _ = self.identity.set(identity);
        }
        Ok(())
    }

    /// The server's view of this connection; `None` when the server did not report a view.
    pub(super) fn identity(&self) -> Option<&ClientIdentity> {
        self.identity.get()
    }

    /// Ends a connection on the server, to keep commands still on the way there from being
    /// executed. Succeeds for a connection without a server end, too.
    ///
    /// # Errors
    /// The sending connection was lost, or the right is missing.
    pub(super) async fn kill(&self, client: &ClientIdentity) -> Result<(), String> {
        let mut kill = Pipeline::new();
        kill.cmd("CLIENT").arg("KILL").arg("ID").arg(&client.id).arg("ADDR").arg(&client.addr);
        match self.send(&kill).await?.pop() {
            Some(Value::ServerError(error)) => Err(format!("CLIENT KILL was refused: {error}")),
            Some(_) | None => Ok(()),
        }
    }

    /// Sends commands in a single write and waits for the replies; the reply to a refused command
    /// is the server's error. Unbounded in time.
    ///
    /// # Errors
    /// The connection was lost: commands may have been executed.
    pub(super) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, String> {
        let count = commands.len();
        let mut connection = self.connection.clone();
        let replies = connection.send_packed_commands(commands, 0, count).await.map_err(reason)?;
        if replies.len() == count {
            Ok(replies)
        } else {
            Err(format!("{} answers to {count} commands", replies.len()))
        }
    }

    /// Subscribes to a channel.
    ///
    /// # Errors
    /// A line of text.
    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), String> {
        self.connection.clone().subscribe(channel).await.map_err(reason)
    }
}

fn reason(error: RedisError) -> String {
    match error.kind() {
        ErrorKind::Io => format!("the connection was lost ({error})"),
        _ => error.to_string(),
    }
}

async fn connect(
    address: &ServerAddress,
    settings: &ConnectionSettings,
) -> Result<Box<dyn ByteStream>, String> {
    let lost = |error: std::io::Error| error::unreachable(address, &error.to_string());
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(lost)?;
    stream.set_nodelay(true).map_err(lost)?;
    let Some(tls) = &settings.tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(address.host.clone())
        .map_err(|_| error::unreachable(address, "TLS needs a host name or an IP address"))?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(|error| {
        error::unreachable(address, &format!("the TLS handshake failed: {error}"))
    })?;
    Ok(Box::new(stream))
}
