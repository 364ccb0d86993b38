//! One connection to one server: opening it, saying who we are, and asking.
//!
//! Nothing here tries again. A request that fails after it was handed over may have been done, and
//! only the caller knows whether asking twice is harmless.

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

use super::error;
use super::target::Target;
use crate::store::urls::{self, RedisUrl};

/// How to enter a server. Never printed: it holds the password.
#[derive(Clone)]
pub(super) struct Login {
    user: RedisConnectionInfo,
    tls: Option<Arc<ClientConfig>>,
    /// For the connection, TLS, the login and the checks together.
    patience: Duration,
}

impl Login {
    pub(super) fn database(&self) -> i64 {
        self.user.db()
    }

    /// How long opening a connection may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// For a Sentinel: it has no databases, and often no password.
    pub(super) fn at_sentinel(&self, with_password: bool) -> Self {
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
/// One line that never shows the password.
pub(super) fn parse(
    url: &str,
    tls: Option<&Arc<ClientConfig>>,
    patience: Duration,
) -> Result<(Target, Login), String> {
    let RedisUrl { host, port, user, secure } = urls::redis(url)?;
    let target = Target { host, port };
    Ok((target, Login { user, tls: tls.filter(|_| secure).cloned(), patience }))
}

/// A connection. Requests of several callers share it; answers come in the order of the requests.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    session: OnceLock<Session>,
}

/// The server's end of a connection: its number there, and where it comes from.
#[derive(Debug, Clone)]
pub(super) struct Session {
    id: String,
    addr: String,
}

impl Session {
    /// Reads the answer to `CLIENT INFO`.
    fn parse(info: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = info.split_whitespace().find_map(|field| field.strip_prefix(name));
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        Some(Self { id: field("id=")?, addr: field("addr=")? })
    }

    /// Ends it on the server, from another connection: what was sent on it and is still on its way
    /// is not done any more. One that has ended is none.
    ///
    /// # Errors
    /// The other connection was lost, or the right is missing.
    pub(super) async fn end(&self, from: &Link) -> Result<(), String> {
        let mut kill = Pipeline::new();
        kill.cmd("CLIENT").arg("KILL").arg("ID").arg(&self.id).arg("ADDR").arg(&self.addr);
        match from.ask(&kill).await?.pop() {
            Some(Value::ServerError(error)) => Err(format!("CLIENT KILL was refused: {error}")),
            Some(_) | None => Ok(()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Link {
    /// Connects and logs in.
    ///
    /// # Errors
    /// One line.
    pub(super) async fn open(target: &Target, login: &Login) -> Result<Self, String> {
        let config = AsyncConnectionConfig::new();
        let user = login.user.clone().set_protocol(ProtocolVersion::RESP2);
        Self::enter(target, login, user, config).await
    }

    /// Connects for listening: what comes without being asked for is given to `heard`.
    ///
    /// # Errors
    /// One line.
    pub(super) async fn open_for_messages(
        target: &Target,
        login: &Login,
        heard: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let config = AsyncConnectionConfig::new().set_push_sender(heard);
        let user = login.user.clone().set_protocol(ProtocolVersion::RESP3);
        Self::enter(target, login, user, config).await
    }

    async fn enter(
        target: &Target,
        login: &Login,
        user: RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Self, String> {
        // Waiting is bounded by whoever asks, who also knows what a timeout means.
        let config = config.set_response_timeout(None);
        let opening = async {
            let stream = connect(target, login).await?;
            MultiplexedConnection::new_with_config(&user, stream, config)
                .await
                .map_err(|error| error::no_entry(target, &error))
        };
        let (connection, driver) = tokio::time::timeout(login.patience, opening)
            .await
            .map_err(|_| error::unreachable(target, &error::silent(login.patience)))??;
        #[expect(clippy::disallowed_methods, reason = "it ends with its connection")]
        let driver = tokio::spawn(driver).abort_handle();
        Ok(Self { connection, driver, session: OnceLock::new() })
    }

    /// Asks which connection this is on the server, so that it can be ended from another.
    ///
    /// # Errors
    /// The connection was lost.
    pub(super) async fn introduce(&self) -> Result<(), String> {
        let mut info = Pipeline::new();
        info.cmd("CLIENT").arg("INFO");
        let text = match self.ask(&info).await?.pop() {
            Some(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Some(Value::VerbatimString { text, .. }) => text,
            _ => String::new(),
        };
        if let Some(session) = Session::parse(&text) {
            // Asked once, when the connection is made.
            let _ = self.session.set(session);
        }
        Ok(())
    }

    /// The server's end of it, where the server tells.
    pub(super) fn session(&self) -> Option<&Session> {
        self.session.get()
    }

    /// Sends commands in one write and waits for all answers; an error the server gives to one of
    /// them is that one's answer. Unbounded in time.
    ///
    /// # Errors
    /// The connection was lost: any of them may have been done.
    pub(super) async fn ask(&self, commands: &Pipeline) -> Result<Vec<Value>, String> {
        let count = commands.len();
        let mut connection = self.connection.clone();
        let answers = connection.send_packed_commands(commands, 0, count).await.map_err(reason)?;
        if answers.len() == count {
            Ok(answers)
        } else {
            Err(format!("{} answers to {count} commands", answers.len()))
        }
    }

    /// Subscribes to a channel.
    ///
    /// # Errors
    /// One line.
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

async fn connect(target: &Target, login: &Login) -> Result<Box<dyn Stream>, String> {
    let lost = |error: std::io::Error| error::unreachable(target, &error.to_string());
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(lost)?;
    stream.set_nodelay(true).map_err(lost)?;
    let Some(tls) = &login.tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(target.host.clone())
        .map_err(|_| error::unreachable(target, "TLS needs a host name or an IP address"))?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(|error| {
        error::unreachable(target, &format!("the TLS handshake failed: {error}"))
    })?;
    Ok(Box::new(stream))
}
