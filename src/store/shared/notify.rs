//! Waking those who wait for a record that another process has in flight.
//!
//! Who waits tells the owner; the owner tells those who asked when the record has changed. So calls
//! for which nobody waits elsewhere, nearly all, cost no message. Messages are hints: one that is
//! lost is made up for by the waiter's own looks.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{Notify, broadcast, mpsc};

use super::engine::Engine;
use super::message::Message;
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;
use crate::store::watch::{Watch, Woken};

/// Messages that may wait to be sent; more are dropped.
const OUTGOING: usize = 4096;
/// Messages that go together.
const TOGETHER: usize = 256;
/// Processes that are told of one record; more look for themselves.
const MAX_WAITING: usize = 64;
/// Announcements that may wait to be taken; who takes them too slowly is told that some are missing.
const ANNOUNCED: usize = 256;

type Waiters = DashMap<RecordId, Vec<Arc<Notify>>, BuildIdHasher>;

/// Who waits for what.
#[derive(Debug)]
pub(super) struct Wake {
    owner: Nonce,
    /// What this process has in flight, and which others wait for each.
    own: DashMap<RecordId, Vec<Nonce>, BuildIdHasher>,
    /// What this process waits for.
    waiters: Arc<Waiters>,
    outgoing: mpsc::Sender<(Nonce, Message)>,
    /// What others say to everyone.
    announced: broadcast::Sender<RecordId>,
}

/// The messages to send, for [`send`].
pub(super) type Outgoing = mpsc::Receiver<(Nonce, Message)>;

/// Takes one waiter off the list when it is dropped.
struct Guard {
    waiters: Arc<Waiters>,
    id: RecordId,
    notify: Arc<Notify>,
}

impl Wake {
    pub(super) fn new(owner: Nonce) -> (Self, Outgoing) {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let (own, waiters) = (DashMap::default(), Arc::default());
        let announced = broadcast::Sender::new(ANNOUNCED);
        (Self { owner, own, waiters, outgoing, announced }, messages)
    }

    /// This process is about to have the record in flight.
    pub(super) fn began(&self, id: RecordId) {
        self.own.entry(id).or_default();
    }

    /// It has it in flight no longer: whoever waits for it is told.
    pub(super) fn ended(&self, id: RecordId) {
        if let Some((_, waiting)) = self.own.remove(&id) {
            for to in waiting {
                self.tell(to, Message::Changed { id });
            }
        }
    }

    /// Watches a record that `owner` has in flight.
    pub(super) fn watch(&self, id: RecordId, owner: Nonce) -> Watch {
        let notify = Arc::new(Notify::new());
        self.waiters.entry(id).or_default().push(notify.clone());
        self.tell(owner, Message::Waiting { id, from: self.owner });
        let guard = Guard { waiters: self.waiters.clone(), id, notify: notify.clone() };
        Watch::new(Woken { notify, guard: Box::new(guard) })
    }

    /// What others announce from now on.
    pub(super) fn announced(&self) -> broadcast::Receiver<RecordId> {
        self.announced.subscribe()
    }

    /// A message of another process.
    pub(super) fn heard(&self, message: Message) {
        match message {
            Message::Changed { id } => {
                if let Some(waiters) = self.waiters.get(&id) {
                    waiters.iter().for_each(|notify| notify.notify_one());
                }
            }
            Message::Waiting { id, from } => match self.own.get_mut(&id) {
                Some(mut waiting) => {
                    if waiting.len() < MAX_WAITING && !waiting.contains(&from) {
                        waiting.push(from);
                    }
                }
                // It ended before the message came.
                None => self.tell(from, Message::Changed { id }),
            },
            // Nobody may be interested.
            Message::Replaced { id } => drop(self.announced.send(id)),
        }
    }

    fn tell(&self, to: Nonce, message: Message) {
        // Full: the others look for themselves.
        let _ = self.outgoing.try_send((to, message));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Entry::Occupied(mut waiters) = self.waiters.entry(self.id) {
            waiters.get_mut().retain(|notify| !Arc::ptr_eq(notify, &self.notify));
            if waiters.get().is_empty() {
                waiters.remove();
            }
        }
    }
}

/// Sends the messages, those that wait together, until the end starts.
pub(super) async fn send<E: Engine>(engine: Arc<E>, mut messages: Outgoing, mut end: Shutdown) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            count = messages.recv_many(&mut batch, TOGETHER) => {
                if count == 0 {
                    return;
                }
            }
            () = end.wait() => return,
        }
        if let Err(trouble) = engine.publish(std::mem::take(&mut batch)).await {
            tracing::debug!(reason = trouble.reason(), "messages to other processes were lost");
        }
    }
}

/// Hears the messages of others until the end starts.
pub(super) async fn hear(wake: Arc<Wake>, mut heard: mpsc::Receiver<Message>) {
    while let Some(message) = heard.recv().await {
        wake.heard(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::id;

    const US: Nonce = [1; 16];
    const OTHER: Nonce = [2; 16];

    #[test]
    fn who_asks_is_told_once_when_the_record_has_changed() {
        let (wake, mut sent) = Wake::new(US);
        wake.began(id(1));
        for _ in 0..3 {
            wake.heard(Message::Waiting { id: id(1), from: OTHER });
        }
        assert!(sent.try_recv().is_err());
        wake.ended(id(1));
        wake.ended(id(1));
        assert_eq!(sent.try_recv().ok(), Some((OTHER, Message::Changed { id: id(1) })));
        assert!(sent.try_recv().is_err());
        assert!(wake.own.is_empty());
    }

    #[test]
    fn who_asks_too_late_is_told_at_once() {
        let (wake, mut sent) = Wake::new(US);
        wake.heard(Message::Waiting { id: id(1), from: OTHER });
        assert_eq!(sent.try_recv().ok(), Some((OTHER, Message::Changed { id: id(1) })));
    }

    #[tokio::test]
    async fn every_watch_of_a_record_is_woken_and_leaves_nothing_behind() {
        let (wake, mut sent) = Wake::new(US);
        let (mut first, mut second) = (wake.watch(id(1), OTHER), wake.watch(id(1), OTHER));
        let asked = (OTHER, Message::Waiting { id: id(1), from: US });
        assert_eq!((sent.try_recv().ok(), sent.try_recv().ok()), (Some(asked), Some(asked)));
        wake.heard(Message::Changed { id: id(2) });
        wake.heard(Message::Changed { id: id(1) });
        first.changed().await;
        second.changed().await;
        drop((first, second));
        assert!(wake.waiters.is_empty());
    }
}
