//! Connections of the operator's listener. They are few, and probes decide over the life of the
//! process: a client that holds as many connections as there may be must not keep probes out, so a
//! further connection ends the oldest one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Connections at once: a few probes, scrapes and people.
pub(super) const MOST: usize = 64;
/// Connections that are accepted at once. Those that are being ended count until they have ended,
/// and one above this number is refused.
pub(super) const ACCEPTED: usize = 16 * MOST;

/// The open connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<VecDeque<Arc<Notify>>>,
}

impl Connections {
    /// The place of a new connection. Called in the order in which connections are accepted: their
    /// tasks may start in another one.
    pub(super) fn begin(self: &Arc<Self>) -> OpenConnection {
        let ending = Arc::new(Notify::new());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST
            && let Some(oldest) = open.pop_front()
        {
            oldest.notify_one();
        }
        open.push_back(ending.clone());
        drop(open);
        OpenConnection { of: self.clone(), ending }
    }
}

/// The place of a connection among the open ones, given back when it is dropped.
pub(super) struct OpenConnection {
    of: Arc<Connections>,
    ending: Arc<Notify>,
}

impl OpenConnection {
    /// Runs `serving`, the future of the connection, until it ends or [`MOST`] later connections
    /// have begun.
    pub(super) async fn run(self, serving: impl Future<Output = ()>) {
        tokio::select! {
            () = serving => {}
            () = self.ending.notified() => {
                tracing::debug!("the oldest admin connection was ended for a further one");
            }
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.of.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| !Arc::ptr_eq(other, &self.ending));
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test has nothing to drain")]
    async fn a_further_connection_ends_the_oldest_and_gives_its_place_back() {
        let connections = Arc::new(Connections::default());
        let mut open = VecDeque::new();
        for _ in 0..MOST {
            let (began, has_begun) = oneshot::channel();
            let connections = connections.clone();
            open.push_back(tokio::spawn(async move {
                let serving = async {
                    began.send(()).unwrap();
                    pending::<()>().await;
                };
                connections.begin().run(serving).await;
            }));
            has_begun.await.unwrap();
        }
        connections.begin().run(async {}).await;
        open.pop_front().unwrap().await.unwrap();
        assert_eq!(connections.open.lock().unwrap().len(), MOST - 1);
        assert!(open.iter().all(|task| !task.is_finished()));
        for task in open {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert!(connections.open.lock().unwrap().is_empty());
    }
}
