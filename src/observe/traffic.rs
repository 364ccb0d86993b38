//! Traffic of the last day, minute by minute: for the operator's page and `/api/stats`.
//!
//! A task notes the totals of the metrics once a minute; requests do nothing for it. The ring holds
//! a fixed number of minutes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::metrics::{Metrics, Totals};
use crate::clock::Timestamp;
use crate::shutdown::Shutdown;

/// Minutes of the ring: a day, and the minute before its first.
const MINUTES: usize = 24 * 60 + 1;
const MINUTE: u64 = 60_000;

/// The totals at the end of the past minutes.
#[derive(Debug)]
pub(crate) struct Traffic {
    metrics: Arc<Metrics>,
    noted: Mutex<VecDeque<(u64, Totals)>>,
}

/// The requests of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrafficBar {
    /// Beginning of the time.
    pub(crate) start: Timestamp,
    /// Requests of the time.
    pub(crate) totals: Totals,
}

impl Traffic {
    /// An empty ring over these metrics.
    pub(crate) fn new(metrics: Arc<Metrics>, now: Timestamp) -> Arc<Self> {
        let noted = VecDeque::from([(now.as_millis() / MINUTE, Totals::default())]);
        Arc::new(Self { metrics, noted: Mutex::new(noted) })
    }

    /// Notes the totals at each full minute, until the shutdown.
    pub(crate) async fn run(self: Arc<Self>, mut shutdown: Shutdown) {
        loop {
            let now = crate::clock::now().as_millis();
            tokio::select! {
                () = sleep(Duration::from_millis(MINUTE - now % MINUTE)) => {}
                () = shutdown.wait() => return,
            }
            self.note(crate::clock::now());
        }
    }

    fn note(&self, now: Timestamp) {
        let totals = self.metrics.totals();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.as_millis() / MINUTE;
        // A clock that was set back must not make a minute stand twice.
        if noted.back().is_some_and(|(last, _)| *last >= minute) {
            noted.retain(|(noted, _)| *noted < minute);
        }
        noted.push_back((minute, totals));
        while noted.len() > MINUTES {
            noted.pop_front();
        }
    }

    /// The last `count` times of `minutes` each, the oldest first; the last one is not over yet.
    pub(crate) fn bars(&self, count: u64, minutes: u64, now: Timestamp) -> Vec<TrafficBar> {
        let current = self.metrics.totals();
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.as_millis() / MINUTE;
        // Bars begin at multiples of their length, so that a bar keeps its bounds.
        let last = now / minutes * minutes;
        let first = last.saturating_sub((count - 1) * minutes);
        let at = |minute: u64| {
            let before = noted.iter().rev().find(|(noted, _)| *noted <= minute);
            before.or(noted.front()).map_or(Totals::default(), |(_, totals)| *totals)
        };
        let bars = (0..count).map(|bar| {
            let start = first + bar * minutes;
            let end = if start == last { current } else { at(start + minutes) };
            let totals = end.since(at(start));
            TrafficBar { start: Timestamp::from_millis(start * MINUTE), totals }
        });
        bars.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: u64) -> Timestamp {
        Timestamp::from_millis(minute * MINUTE + 1)
    }

    #[test]
    fn bars_are_the_differences_of_minutes() {
        let metrics = Metrics::new();
        let route = metrics.route("a");
        let traffic = Traffic::new(metrics, at(1000));
        let send = |count: usize| (0..count).for_each(|_| route.refused("overloaded"));
        send(2);
        traffic.note(at(1001));
        send(3);
        route.prevented(1);
        traffic.note(at(1002));
        send(4);
        let shown = |count, minutes, now| -> Vec<(u64, u64)> {
            let bars = traffic.bars(count, minutes, at(now));
            bars.iter().map(|bar| (bar.totals.requests, bar.totals.prevented)).collect()
        };
        assert_eq!(shown(4, 1, 1002), [(0, 0), (2, 0), (3, 1), (4, 0)]);
        assert_eq!(shown(2, 30, 1002), [(0, 0), (9, 1)]);
        let bars = traffic.bars(60, 1, at(1002));
        assert_eq!(bars.len(), 60);
        assert_eq!(bars.last().map(|bar| bar.start), Some(Timestamp::from_millis(1002 * MINUTE)));
        // A gap: the task did not run for a while.
        traffic.note(at(1010));
        assert_eq!(shown(3, 1, 1011), [(4, 0), (0, 0), (0, 0)]);
        // The clock was set back.
        traffic.note(at(1005));
        assert_eq!(shown(2, 1, 1005), [(4, 0), (0, 0)]);
        for minute in 2000..5000 {
            traffic.note(at(minute));
        }
        assert!(traffic.noted.lock().unwrap().len() <= MINUTES);
    }
}
