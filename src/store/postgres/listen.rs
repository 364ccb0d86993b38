//! Messages of other gateways, by LISTEN and NOTIFY.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::Type;

use super::Postgres;
use super::connection::{Link, Sql};
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;
use crate::store::shared::message::{EVERYONE, Message};

/// Messages that may wait to be handed over; more are dropped.
const WAITING: usize = 1024;

/// What a gateway says to itself, to see whether messages arrive at all.
const ECHO: &str = "echo";

/// How long the echo may take.
const ECHO_WITHIN: Duration = Duration::from_secs(5);

/// Silence after which the connection is tried with an echo.
const SILENCE: Duration = Duration::from_secs(15);

/// Pause before the connection is made again.
const AGAIN: Duration = Duration::from_millis(500);

const SEND_ECHO: Sql = Sql { text: "SELECT pg_notify($1, $2)", types: &[Type::TEXT, Type::TEXT] };

/// Where messages to a gateway go.
pub(super) fn channel(owner: &Nonce) -> String {
    let hex: String = owner.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("oncegate_{hex}")
}

/// Hands messages over until the end starts.
pub(super) async fn listen(
    engine: &Postgres,
    owner: Nonce,
    heard: &mpsc::Sender<Message>,
    mut end: Shutdown,
) {
    let mut listener = Listener { engine, channel: channel(&owner), heard, warned: false };
    let ended = end.clone();
    let forever = async {
        while !ended.started() {
            if let Err(reason) = listener.until_lost().await {
                tracing::debug!(error = reason, "messages of other gateways do not arrive");
            }
            sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = end.wait() => {}
        () = forever => {}
    }
}

struct Listener<'a> {
    engine: &'a Postgres,
    channel: String,
    heard: &'a mpsc::Sender<Message>,
    /// That messages do not arrive is told once.
    warned: bool,
}

impl Listener<'_> {
    /// Connects and hands over until the connection is lost.
    async fn until_lost(&mut self) -> Result<(), String> {
        let (sender, mut arriving) = mpsc::channel(WAITING);
        let link = self.engine.connector.link(Some(sender)).await?;
        let listen = format!("LISTEN {}; LISTEN {}", self.channel, channel(&EVERYONE));
        let within = Instant::now() + self.engine.timeout;
        link.run(&listen, within).await.map_err(|failed| reason_of(failed.into()))?;
        self.echo(&link, &mut arriving).await?;
        loop {
            match timeout(SILENCE, arriving.recv()).await {
                Ok(Some(payload)) => self.hand_over(&payload),
                Ok(None) => return Err("the connection ended".to_owned()),
                Err(_) => self.echo(&link, &mut arriving).await?,
            }
        }
    }

    fn hand_over(&self, payload: &str) {
        if let Some(message) = Message::parse(payload) {
            // Where it is full the message is lost: messages are hints.
            let _ = self.heard.try_send(message);
        }
    }

    /// Sends itself a message by another connection, and waits for it. A pooler that gives each
    /// transaction another connection loses them all.
    async fn echo(
        &mut self,
        link: &Link,
        arriving: &mut mpsc::Receiver<String>,
    ) -> Result<(), String> {
        if !link.is_open() {
            return Err("the connection ended".to_owned());
        }
        let control = &self.engine.control;
        let sent = self.engine.ask(control, &SEND_ECHO, &[&self.channel, &ECHO]).await;
        sent.map_err(|failed| reason_of(failed.into()))?;
        let echoed = async {
            while let Some(payload) = arriving.recv().await {
                if payload == ECHO {
                    return true;
                }
                self.hand_over(&payload);
            }
            false
        };
        match timeout(ECHO_WITHIN, echoed).await {
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

fn reason_of(trouble: crate::store::shared::engine::EngineError) -> String {
    trouble.reason().to_owned()
}
