//! Messages between processes: hints, published on the channel of the receiver.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Pipeline, PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc};

use super::address::ServerAddress;
use super::command::SlotCommand;
use super::connection::RedisConnection;
use super::engine::Redis;
use super::error;
use super::keys::meta_slot;
use super::node::CONTROL_CONNECTION;
use super::reply::text;
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;
use crate::store::shared::engine::EngineError;
use crate::store::shared::message::{EVERYONE, Message};

/// First pause between two attempts to subscribe; every further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Time between two checks of the subscribed connection.
const PING_INTERVAL: Duration = Duration::from_secs(5);

impl Redis {
    pub(super) async fn publish_messages(
        &self,
        messages: Vec<(Nonce, Message)>,
    ) -> Result<(), EngineError> {
        let commands: Vec<SlotCommand> = messages
            .into_iter()
            .map(|(to, message)| {
                let mut command = Cmd::new();
                command.arg("PUBLISH").arg(self.keys.channel(&to)).arg(message.to_text());
                // Channels have no slot: a cluster forwards each message to all its nodes.
                SlotCommand::new(meta_slot(), command)
            })
            .collect();
        if commands.is_empty() {
            return Ok(());
        }
        self.query(CONTROL_CONNECTION, 0, &commands).await.map(drop)
    }

    pub(super) async fn receive_messages(
        &self,
        owner: Nonce,
        received: mpsc::Sender<Message>,
        mut end: Shutdown,
    ) {
        let mut pause = FIRST_PAUSE;
        let mut logged = false;
        while !end.started() {
            let subscribed = Arc::new(Mutex::new(false));
            let reason = tokio::select! {
                reason = self.receive_until_lost(&owner, &received, &subscribed) => reason,
                () = end.wait() => return,
            };
            if std::mem::take(&mut *subscribed.lock().unwrap_or_else(PoisonError::into_inner)) {
                (pause, logged) = (FIRST_PAUSE, false);
            }
            // Once for each outage, however many attempts to subscribe fail.
            if !logged {
                tracing::warn!(
                    error = reason,
                    "messages of other processes are not received until the subscription is \
                     restored; waiting requests poll the store meanwhile"
                );
                logged = true;
            }
            self.topology.mark_stale();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = end.wait() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Receives messages until the connection is lost, and gives the reason.
    async fn receive_until_lost(
        &self,
        owner: &Nonce,
        received: &mpsc::Sender<Message>,
        subscribed: &Mutex<bool>,
    ) -> String {
        let lost = Arc::new(Notify::new());
        let (ended, received) = (lost.clone(), received.clone());
        let on_push = move |push: PushInfo| {
            match push.kind {
                // Dropped when the queue is full: messages are hints.
                PushKind::Message => {
                    _ = message(&push).map(|message| received.try_send(message));
                }
                PushKind::Disconnection => ended.notify_one(),
                _ => {}
            }
            Ok(())
        };
        let subscribing = async {
            let map = self.topology.map().await?;
            let node = map.node(meta_slot()).ok_or("no server has the store's own slot")?;
            let connection = node.open_subscriber(on_push).await?;
            for to in [owner, &EVERYONE] {
                connection.subscribe(&self.keys.channel(to)).await?;
            }
            Ok::<_, String>((connection, node.address.clone()))
        };
        let limit = self.connect_timeout + self.timeout;
        let (connection, address) = match tokio::time::timeout(limit, subscribing).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(reason)) => return reason,
            Err(_) => return error::no_answer(limit),
        };
        *subscribed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        tokio::select! {
            () = lost.notified() => error::unreachable(&address, "the connection was lost"),
            reason = self.watch_role(&connection, &address) => reason,
        }
    }

    /// Pings a quiet connection until the server is gone or no longer the primary, and gives the
    /// reason.
    async fn watch_role(&self, connection: &RedisConnection, address: &ServerAddress) -> String {
        let mut ping = Pipeline::new();
        ping.cmd("PING").cmd("ROLE");
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            let replies = match tokio::time::timeout(self.timeout, connection.send(&ping)).await {
                Ok(Ok(replies)) => replies,
                Ok(Err(reason)) => return error::unreachable(address, &reason),
                Err(_) => return error::unreachable(address, &error::no_answer(self.timeout)),
            };
            let role = match replies.get(1) {
                Some(Value::Array(role)) => role.first().and_then(text),
                _ => None,
            };
            // Other processes publish on the primary.
            if role.as_deref() != Some("master") {
                return format!("the Redis server {address} is no longer the primary");
            }
        }
    }
}

fn message(push: &PushInfo) -> Option<Message> {
    Message::parse(&text(push.data.get(1)?)?)
}
