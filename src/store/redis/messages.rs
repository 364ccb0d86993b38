//! Messages between processes: hints, each over the channel of its receiver.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Pipeline, PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc};

use super::dispatch::Ask;
use super::keys;
use super::topology::SIGNALS;
use super::{Redis, error, requirements};
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;
use crate::store::shared::engine::EngineError;
use crate::store::shared::message::{EVERYONE, Message};

/// Pauses between two tries to listen.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often a quiet connection is asked whether it still is one.
const PING_EVERY: Duration = Duration::from_secs(5);

impl Redis {
    pub(super) async fn say(&self, messages: Vec<(Nonce, Message)>) -> Result<(), EngineError> {
        let asks: Vec<Ask> = messages
            .into_iter()
            .map(|(to, message)| {
                let mut command = Cmd::new();
                command.arg("PUBLISH").arg(self.keys.wake(&to)).arg(message.to_text());
                // A channel is in no slot: nodes of a cluster tell each other.
                Ask { slot: keys::meta_slot(), command, script: None }
            })
            .collect();
        if asks.is_empty() {
            return Ok(());
        }
        self.ask(SIGNALS, 0, &asks).await.map(drop)
    }

    pub(super) async fn hear(&self, owner: Nonce, heard: mpsc::Sender<Message>, mut end: Shutdown) {
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        while !end.started() {
            let subscribed = Arc::new(Mutex::new(false));
            let ended = tokio::select! {
                ended = self.hear_once(&owner, &heard, &subscribed) => ended,
                () = end.wait() => return,
            };
            if std::mem::take(&mut *subscribed.lock().unwrap_or_else(PoisonError::into_inner)) {
                (pause, told) = (FIRST_PAUSE, false);
            }
            if !told {
                tracing::warn!(reason = ended, "not listening for other processes for now");
                told = true;
            }
            self.nodes.set_stale();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = end.wait() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Listens until the connection is lost; says why.
    async fn hear_once(
        &self,
        owner: &Nonce,
        heard: &mpsc::Sender<Message>,
        subscribed: &Mutex<bool>,
    ) -> String {
        let lost = Arc::new(Notify::new());
        let (ended, heard) = (lost.clone(), heard.clone());
        let hear = move |push: PushInfo| {
            match push.kind {
                // Dropped when there is no room: messages are hints.
                PushKind::Message => {
                    _ = message(&push).map(|message| heard.try_send(message));
                }
                PushKind::Disconnection => ended.notify_one(),
                _ => {}
            }
            Ok(())
        };
        let opening = async {
            let map = self.nodes.map().await?;
            let node = map.node(keys::meta_slot()).ok_or("no server has the store's own slot")?;
            let link = node.listen(hear).await?;
            for to in [owner, &EVERYONE] {
                link.subscribe(&self.keys.wake(to)).await?;
            }
            Ok::<_, String>((link, node.target.clone()))
        };
        let patience = self.connect_timeout + self.timeout;
        let (link, target) = match tokio::time::timeout(patience, opening).await {
            Ok(Ok(open)) => open,
            Ok(Err(reason)) => return reason,
            Err(_) => return error::silent(patience),
        };
        *subscribed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let mut ping = Pipeline::new();
        ping.cmd("PING").cmd("ROLE");
        loop {
            tokio::select! {
                () = lost.notified() => return error::unreachable(&target, "the connection was lost"),
                () = tokio::time::sleep(PING_EVERY) => {}
            }
            let answers = match tokio::time::timeout(self.timeout, link.ask(&ping)).await {
                Ok(Ok(answers)) => answers,
                Ok(Err(reason)) => return error::unreachable(&target, &reason),
                Err(_) => return error::unreachable(&target, &error::silent(self.timeout)),
            };
            // What others publish goes to the primary.
            let role = match answers.get(1) {
                Some(Value::Array(role)) => role.first().and_then(requirements::text),
                _ => None,
            };
            if role.as_deref() != Some("master") {
                return format!("the Redis server {target} is no longer the primary");
            }
        }
    }
}

fn message(push: &PushInfo) -> Option<Message> {
    Message::parse(&requirements::text(push.data.get(1)?)?)
}
