//! Notifications between processes about records in flight.
//!
//! A process that waits for a record tells the record's owner; the owner notifies the waiting
//! processes when the record has changed. So a call without waiters on other replicas, by far the
//! usual case, costs no message. Messages are hints: a waiter makes up for a lost message by
//! polling.

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

/// Limit of messages queued for sending; further messages are dropped.
const OUTGOING: usize = 4096;
/// Limit of messages in one call to the engine.
const PUBLISH_BATCH: usize = 256;
/// Limit of processes notified for one record; further processes poll.
const MAX_WAITING: usize = 64;
/// Limit of announcements queued for each subscriber; a slow subscriber learns of the loss.
const ANNOUNCED: usize = 256;

type Waiters = DashMap<RecordId, Vec<Arc<Notify>>, BuildIdHasher>;

/// Waiters of this process, and remote processes waiting for this process.
#[derive(Debug)]
pub(super) struct Notifier {
    owner: Nonce,
    /// Records in flight in this process, with the processes to notify.
    in_flight: DashMap<RecordId, Vec<Nonce>, BuildIdHasher>,
    /// Local waiters by watched record.
    waiters: Arc<Waiters>,
    outgoing: mpsc::Sender<(Nonce, Message)>,
    /// Records replaced by remote processes.
    replaced: broadcast::Sender<RecordId>,
}

/// Receiving end of the outgoing messages, for [`send`].
pub(super) type OutgoingMessages = mpsc::Receiver<(Nonce, Message)>;

/// Removes one waiter from the list when dropped.
struct WaiterGuard {
    waiters: Arc<Waiters>,
    id: RecordId,
    notify: Arc<Notify>,
}

impl Notifier {
    /// A notifier of the process `owner`, and the outgoing messages.
    pub(super) fn new(owner: Nonce) -> (Self, OutgoingMessages) {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let (in_flight, waiters) = (DashMap::default(), Arc::default());
        let replaced = broadcast::Sender::new(ANNOUNCED);
        (Self { owner, in_flight, waiters, outgoing, replaced }, messages)
    }

    /// Registers a record that this process is about to have in flight.
    pub(super) fn began(&self, id: RecordId) {
        self.in_flight.entry(id).or_default();
    }

    /// Unregisters a record that is no longer in flight and notifies the waiting processes.
    pub(super) fn ended(&self, id: RecordId) {
        if let Some((_, waiting)) = self.in_flight.remove(&id) {
            for to in waiting {
                self.post(to, Message::Changed { id });
            }
        }
    }

    /// Watches a record that `owner` has in flight.
    pub(super) fn watch(&self, id: RecordId, owner: Nonce) -> Watch {
        let notify = Arc::new(Notify::new());
        self.waiters.entry(id).or_default().push(notify.clone());
        self.post(owner, Message::Waiting { id, from: self.owner });
        let guard = WaiterGuard { waiters: self.waiters.clone(), id, notify: notify.clone() };
        Watch::new(Woken { notify, guard: Box::new(guard) })
    }

    /// Subscribes to later replacements of records by remote processes.
    pub(super) fn replaced(&self) -> broadcast::Receiver<RecordId> {
        self.replaced.subscribe()
    }

    /// Applies a message of a different process.
    pub(super) fn receive(&self, message: Message) {
        match message {
            Message::Changed { id } => {
                if let Some(waiters) = self.waiters.get(&id) {
                    waiters.iter().for_each(|notify| notify.notify_one());
                }
            }
            Message::Waiting { id, from } => match self.in_flight.get_mut(&id) {
                Some(mut waiting) => {
                    if waiting.len() < MAX_WAITING && !waiting.contains(&from) {
                        waiting.push(from);
                    }
                }
                // The record left flight before the message arrived.
                None => self.post(from, Message::Changed { id }),
            },
            // An error means no subscribers.
            Message::Replaced { id } => drop(self.replaced.send(id)),
        }
    }

    fn post(&self, to: Nonce, message: Message) {
        // A full queue drops the message: the receiver polls.
        let _ = self.outgoing.try_send((to, message));
    }
}

impl Drop for WaiterGuard {
    fn drop(&mut self) {
        if let Entry::Occupied(mut waiters) = self.waiters.entry(self.id) {
            waiters.get_mut().retain(|notify| !Arc::ptr_eq(notify, &self.notify));
            if waiters.get().is_empty() {
                waiters.remove();
            }
        }
    }
}

/// Publishes the outgoing messages in batches until shutdown.
pub(super) async fn send<E: Engine>(
    engine: Arc<E>,
    mut messages: OutgoingMessages,
    mut shutdown: Shutdown,
) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            count = messages.recv_many(&mut batch, PUBLISH_BATCH) => {
                if count == 0 {
                    return;
                }
            }
            () = shutdown.wait() => return,
        }
        if let Err(error) = engine.publish(std::mem::take(&mut batch)).await {
            let error = error.reason();
            tracing::debug!(error, "notifications to other replicas were lost; their waiters poll");
        }
    }
}

/// Applies the incoming messages until the engine stops listening.
pub(super) async fn receive(notifier: Arc<Notifier>, mut inbox: mpsc::Receiver<Message>) {
    while let Some(message) = inbox.recv().await {
        notifier.receive(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::id;

    const US: Nonce = [1; 16];
    const OTHER: Nonce = [2; 16];

    #[test]
    fn a_waiting_process_is_notified_once_when_the_record_has_changed() {
        let (notifier, mut sent) = Notifier::new(US);
        notifier.began(id(1));
        for _ in 0..3 {
            notifier.receive(Message::Waiting { id: id(1), from: OTHER });
        }
        assert!(sent.try_recv().is_err());
        notifier.ended(id(1));
        notifier.ended(id(1));
        assert_eq!(sent.try_recv().ok(), Some((OTHER, Message::Changed { id: id(1) })));
        assert!(sent.try_recv().is_err());
        assert!(notifier.in_flight.is_empty());
    }

    #[test]
    fn a_process_that_asks_too_late_is_notified_at_once() {
        let (notifier, mut sent) = Notifier::new(US);
        notifier.receive(Message::Waiting { id: id(1), from: OTHER });
        assert_eq!(sent.try_recv().ok(), Some((OTHER, Message::Changed { id: id(1) })));
    }

    #[tokio::test]
    async fn every_watch_of_a_record_is_notified_and_leaves_no_waiter_behind() {
        let (notifier, mut sent) = Notifier::new(US);
        let (mut first, mut second) = (notifier.watch(id(1), OTHER), notifier.watch(id(1), OTHER));
        let asked = (OTHER, Message::Waiting { id: id(1), from: US });
        assert_eq!((sent.try_recv().ok(), sent.try_recv().ok()), (Some(asked), Some(asked)));
        notifier.receive(Message::Changed { id: id(2) });
        notifier.receive(Message::Changed { id: id(1) });
        first.changed().await;
        second.changed().await;
        drop((first, second));
        assert!(notifier.waiters.is_empty());
    }
}
