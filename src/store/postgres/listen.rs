//! Messages from other gateways, received by `LISTEN` and `NOTIFY`.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::Type;

use super::connection::PostgresConnection;
use super::error::StatementError;
use super::pool::ConnectionPool;
use super::statement::SqlStatement;
use crate::hex;
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;
use crate::store::shared::message::{EVERYONE, Message};

/// Limit of received messages that are not delivered yet; further messages are dropped.
const INBOX: usize = 1024;

/// Message of a gateway to itself, which proves that messages arrive.
const ECHO: &str = "echo";

/// Time limit for the echo.
const ECHO_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which the connection is tested with an echo.
const ECHO_INTERVAL: Duration = Duration::from_secs(15);

/// Pause before reconnecting.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

const SEND_ECHO: SqlStatement =
    SqlStatement { text: "SELECT pg_notify($1, $2)", types: &[Type::TEXT, Type::TEXT] };

/// Channel of the messages to a gateway.
pub(super) fn channel(owner: &Nonce) -> String {
    format!("oncegate_{}", hex::encode(owner))
}

/// Delivers messages until shutdown.
pub(super) async fn listen(
    pool: &ConnectionPool,
    owner: Nonce,
    inbox: &mpsc::Sender<Message>,
    mut shutdown: Shutdown,
) {
    let mut listener = MessageListener { pool, channel: channel(&owner), inbox, warned: false };
    let started = shutdown.clone();
    let forever = async {
        while !started.started() {
            if let Err(error) = listener.listen_until_lost().await {
                tracing::debug!(error, "notifications do not arrive; waiting requests poll");
            }
            sleep(RECONNECT_PAUSE).await;
        }
    };
    tokio::select! {
        () = shutdown.wait() => {}
        () = forever => {}
    }
}

struct MessageListener<'a> {
    pool: &'a ConnectionPool,
    channel: String,
    inbox: &'a mpsc::Sender<Message>,
    /// Set once missing notifications were logged, so that the warning appears once.
    warned: bool,
}

impl MessageListener<'_> {
    /// Connects and delivers messages until the connection is lost.
    async fn listen_until_lost(&mut self) -> Result<(), String> {
        let (sender, mut received) = mpsc::channel(INBOX);
        let connection = self.pool.connector.connect(Some(sender)).await?;
        let listen = format!("LISTEN {}; LISTEN {}", self.channel, channel(&EVERYONE));
        let deadline = Instant::now() + self.pool.timeout;
        connection.execute(&listen, deadline).await.map_err(StatementError::reason)?;
        self.check_delivery(&connection, &mut received).await?;
        loop {
            match timeout(ECHO_INTERVAL, received.recv()).await {
                Ok(Some(payload)) => self.deliver(&payload),
                Ok(None) => return Err("the connection ended".to_owned()),
                Err(_) => self.check_delivery(&connection, &mut received).await?,
            }
        }
    }

    fn deliver(&self, payload: &str) {
        if let Some(message) = Message::parse(payload) {
            // A full inbox loses the message: messages are hints.
            let _ = self.inbox.try_send(message);
        }
    }

    /// Sends an echo over a different connection and waits for its arrival. A pooler that assigns a
    /// connection per transaction loses every notification.
    async fn check_delivery(
        &mut self,
        connection: &PostgresConnection,
        received: &mut mpsc::Receiver<String>,
    ) -> Result<(), String> {
        if !connection.is_open() {
            return Err("the connection ended".to_owned());
        }
        let control = &self.pool.control;
        let sent = self.pool.query(control, &SEND_ECHO, &[&self.channel, &ECHO]).await;
        sent.map_err(StatementError::reason)?;
        let echoed = async {
            while let Some(payload) = received.recv().await {
                if payload == ECHO {
                    return true;
                }
                self.deliver(&payload);
            }
            false
        };
        match timeout(ECHO_TIMEOUT, echoed).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the connection ended".to_owned()),
            Err(_) => {
                if !self.warned {
                    self.warned = true;
                    tracing::warn!(
                        "PostgreSQL does not deliver notifications (a transaction pooler in \
                         between?): waiting requests are answered by polling, which takes longer"
                    );
                }
                Err("the echo did not arrive".to_owned())
            }
        }
    }
}
