//! Waiting for a record that another process has in flight.
//!
//! The store notifies the waiter when the other process announces a change. Nothing depends on the
//! message: without one, the waiter reads the record again at growing intervals.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// First wait without a message.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait without a message.
const LONGEST: Duration = Duration::from_secs(1);

/// A watch on one record.
#[derive(Debug)]
pub struct Watch {
    woken: Option<Woken>,
    pause: Duration,
}

/// Source of a watch's notifications.
#[derive(Debug)]
pub struct Woken {
    /// Notified when the record has changed.
    pub notify: Arc<Notify>,
    /// Registration, released with the watch.
    pub guard: Box<dyn std::any::Any + Send + Sync>,
}

impl Watch {
    /// A watch on a record that no other process can change.
    pub fn never() -> Self {
        Self { woken: None, pause: LONGEST }
    }

    /// A watch with notifications from `woken`.
    pub fn new(woken: Woken) -> Self {
        Self { woken: Some(woken), pause: FIRST }
    }

    /// Makes the next [`Watch::changed`] return at once.
    pub fn look(&self) {
        if let Some(woken) = &self.woken {
            woken.notify.notify_one();
        }
    }

    /// Returns when the record may have changed since the last call, at the latest after about a
    /// second.
    pub async fn changed(&mut self) {
        let pause = self.next_pause();
        match &self.woken {
            Some(woken) => {
                let _ = timeout(pause, woken.notify.notified()).await;
            }
            None => tokio::time::sleep(pause).await,
        }
    }

    /// Pause with random spread, so that replicas that began to wait together do not read together.
    fn next_pause(&mut self) -> Duration {
        let spread = f64::from(crate::nonce::number() as u16) / f64::from(u16::MAX);
        let pause = self.pause.mul_f64(0.75 + spread / 2.0);
        self.pause = (self.pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_that_came_before_the_wait_is_not_missed() {
        let notify = Arc::new(Notify::new());
        let mut watch = Watch::new(Woken { notify: notify.clone(), guard: Box::new(()) });
        watch.pause = Duration::from_secs(600);
        notify.notify_one();
        watch.changed().await;
        assert_eq!(watch.pause, LONGEST);
    }

    #[test]
    fn without_a_message_the_waits_grow_and_are_bounded() {
        let mut watch = Watch::new(Woken { notify: Arc::default(), guard: Box::new(()) });
        let waits: Vec<Duration> = (0..8).map(|_| watch.next_pause()).collect();
        assert!(waits[0] <= FIRST.mul_f64(1.25), "{waits:?}");
        assert!(waits[7] >= LONGEST.mul_f64(0.75), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST.mul_f64(1.25)), "{waits:?}");
    }
}
