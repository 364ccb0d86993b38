//! Changes that wait for the server, and the lanes that take them there.
//!
//! Alone, a change waits for no one. While a commit is under way, what arrives gathers and goes
//! together in the next; when that leaves, `batching` says. Before it leaves with little, those who are
//! about to ask as well are let ask. As many commits run at once as the engine has lanes. Of two
//! groups that name the same record the first is first: the second waits until the first has its
//! result.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::batching::{Next, Pace};
use super::engine::{CasResult, Engine, EngineError, Group};
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::shutdown::Shutdown;

/// Groups that may wait; more than these are refused at once.
const QUEUE: usize = 16_384;
/// Bytes of records after which a commit takes no more.
const MAX_BYTES: usize = 4 << 20;
/// Turns of the runtime's tasks before a commit leaves, at most, and those of them in a row that may
/// bring nothing: from an answer on the network to the change it leads to are two.
const MOST_TURNS: usize = 8;
const QUIET_TURNS: usize = 1;
/// The pause before the first repetition of a commit that failed, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// What came of a group, or why nothing is known of it.
pub(super) type Answer = Result<CasResult, String>;

/// A group that waits for its result.
struct Asked {
    group: Group,
    arrived: Instant,
    /// After this nobody waits for the result any more, and the group is not sent again.
    until: Instant,
    answer: oneshot::Sender<Answer>,
}

/// The changes that wait.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

struct Waiting {
    groups: VecDeque<Asked>,
    /// The records of the groups that are on their way.
    busy: Busy,
    /// Commits that are under way.
    commits: usize,
    /// The groups of the last one that left.
    last: usize,
    /// A lane looks again by itself before anything has waited too long.
    watched: bool,
    pace: Pace,
    /// Why the last commit failed, and when, unless one was made since.
    trouble: Option<(Instant, String)>,
}

/// What a lane finds.
enum Found {
    /// The groups of its next commit, and whether others are left that could go as well.
    Batch(Vec<Asked>, bool),
    /// Groups that may wait for others until then.
    Gathering(Instant),
    /// Nothing that could go.
    Nothing,
}

type Busy = HashSet<RecordId, BuildIdHasher>;

impl Queue {
    /// Without changes yet, for a process that may use so many cores.
    pub(super) fn new(cores: usize) -> Self {
        let waiting = Waiting {
            groups: VecDeque::new(),
            busy: Busy::default(),
            commits: 0,
            last: 0,
            watched: false,
            pace: Pace::new(cores),
            trouble: None,
        };
        Self { waiting: Mutex::new(waiting), arrived: Notify::new() }
    }

    /// Queues a group; from now on it is on its way even if nobody waits for the result.
    pub(super) fn push(
        &self,
        group: Group,
        until: Instant,
    ) -> Result<oneshot::Receiver<Answer>, String> {
        let (answer, result) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.groups.len() >= QUEUE {
            return Err(format!("{QUEUE} changes wait for it already; it is too slow"));
        }
        waiting.groups.push_back(Asked { group, arrived: Instant::now(), until, answer });
        let look = !waiting.watched || waiting.groups.len() == waiting.pace.enough();
        drop(waiting);
        if look {
            self.arrived.notify_one();
        }
        Ok(result)
    }

    /// Waits for groups that can go now, and takes as many as make one commit.
    async fn take(&self) -> Vec<Asked> {
        loop {
            let arrived = self.arrived.notified();
            self.gather_ready().await;
            let found = self.lock().take(Instant::now());
            match found {
                Found::Batch(batch, more) => {
                    if more {
                        // For another lane: what is left goes as well, or is watched.
                        self.arrived.notify_one();
                    }
                    return batch;
                }
                Found::Gathering(until) => tokio::select! {
                    () = arrived => {}
                    () = sleep_until(until) => {}
                },
                Found::Nothing => arrived.await,
            }
        }
    }

    /// Lets the tasks run that can, for as long as that brings changes which go as well. What is
    /// ready in this process costs no wait; without this, a commit would leave with what happened to
    /// come before it in the turn of the tasks.
    async fn gather_ready(&self) {
        let (mut seen, mut quiet) = (0, 0);
        for _ in 0..MOST_TURNS {
            let (now, suffices) = self.lock().others();
            quiet = if now > seen { 0 } else { quiet + 1 };
            if now == 0 || suffices || quiet > QUIET_TURNS {
                return;
            }
            seen = now;
            tokio::task::yield_now().await;
        }
    }

    /// Why the last commit failed, unless one was made since or it is longer ago than this.
    pub(super) fn trouble(&self, within: Duration) -> Option<String> {
        let trouble = self.lock().trouble.clone();
        trouble.filter(|(at, _)| at.elapsed() <= within).map(|(_, reason)| reason)
    }

    /// These records are no longer on their way; what waited for them can go.
    fn release(&self, ids: &[RecordId]) {
        let mut waiting = self.lock();
        for id in ids {
            waiting.busy.remove(id);
        }
    }

    /// A commit of so many rows was made in this time.
    fn made(&self, rows: usize, time: Duration) {
        let mut waiting = self.lock();
        waiting.trouble = None;
        waiting.pace.took(rows, time);
    }

    /// A commit has ended. Its lane looks for the next one itself.
    fn ended(&self) {
        let mut waiting = self.lock();
        waiting.commits = waiting.commits.saturating_sub(1);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing between lock and unlock can leave the queue half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// How many groups wait, unless it is one after one: changes that come alone wait for nobody.
    /// And whether those are enough to go.
    fn others(&self) -> (usize, bool) {
        let alone = self.groups.len() == 1 && self.last <= 1 && self.commits == 0;
        let groups = if alone { 0 } else { self.groups.len() };
        (groups, self.pace.suffices(groups))
    }

    /// What a lane that is free does now.
    fn take(&mut self, now: Instant) -> Found {
        self.watched = false;
        let Some(first) = self.groups.front() else { return Found::Nothing };
        let waiting = (self.groups.len(), first.arrived);
        let groups = match self.pace.next(waiting, self.commits, self.last, now) {
            Next::Go(groups) => groups,
            Next::Wait(until) => {
                self.watched = true;
                return Found::Gathering(until);
            }
        };
        let (batch, more) = self.batch(groups);
        if batch.is_empty() {
            return Found::Nothing;
        }
        self.commits += 1;
        self.last = batch.len();
        Found::Batch(batch, more)
    }

    /// The groups of the next commit, so many at most, and whether others are left that could go as
    /// well.
    fn batch(&mut self, groups: usize) -> (Vec<Asked>, bool) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        // Records of groups that have to wait: later groups must not overtake them.
        let mut held = Busy::default();
        let mut kept = VecDeque::new();
        while batch.len() < groups && bytes < MAX_BYTES {
            let Some(asked) = self.groups.pop_front() else { break };
            let ids = || asked.group.changes.iter().map(|row| row.id);
            if ids().any(|id| self.busy.contains(&id) || held.contains(&id)) {
                held.extend(ids());
                kept.push_back(asked);
                continue;
            }
            self.busy.extend(ids());
            bytes += asked.group.bytes();
            batch.push(asked);
        }
        let more = !batch.is_empty() && !self.groups.is_empty();
        while let Some(asked) = kept.pop_back() {
            self.groups.push_front(asked);
        }
        (batch, more)
    }
}

/// Takes what waits to the server, one commit after the other, until the end starts.
pub(super) async fn lane<E: Engine>(
    engine: Arc<E>,
    queue: Arc<Queue>,
    lane: usize,
    mut end: Shutdown,
) {
    loop {
        tokio::select! {
            batch = queue.take() => commit(&*engine, &queue, lane, batch).await,
            () = end.wait() => return,
        }
        queue.ended();
    }
}

/// Commits a batch, again and again until it has a result or nobody waits for one.
async fn commit<E: Engine>(engine: &E, queue: &Queue, lane: usize, batch: Vec<Asked>) {
    let mut pause = FIRST_PAUSE;
    let (mut groups, mut waiting): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|asked| (asked.group, (asked.until, asked.answer))).unzip();
    let mut reason = String::from("it was not reached in time");
    loop {
        drop_late(queue, &mut groups, &mut waiting, &reason);
        if groups.is_empty() {
            return;
        }
        let sent = Instant::now();
        match engine.commit(lane, &groups).await {
            Ok(results) if results.len() == groups.len() => {
                queue.made(groups.iter().map(|group| group.changes.len()).sum(), sent.elapsed());
                queue.release(&ids(&groups));
                for ((_, answer), result) in waiting.into_iter().zip(results) {
                    // Whoever asked may be gone; the change stands all the same.
                    let _ = answer.send(Ok(result));
                }
                return;
            }
            Ok(_) => {
                // An engine never does this. What it did is not known.
                groups.iter_mut().for_each(|group| group.resent = true);
                reason = String::from("its answer does not fit the question");
            }
            Err(trouble) => {
                if let EngineError::Indeterminate(_) = trouble {
                    groups.iter_mut().for_each(|group| group.resent = true);
                }
                trouble.reason().clone_into(&mut reason);
            }
        }
        queue.lock().trouble = Some((Instant::now(), reason.clone()));
        tracing::debug!(reason, "a commit is tried again");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Gives up the groups whose time has ended.
fn drop_late(
    queue: &Queue,
    groups: &mut Vec<Group>,
    waiting: &mut Vec<(Instant, oneshot::Sender<Answer>)>,
    reason: &str,
) {
    let now = Instant::now();
    let mut at = 0;
    while at < groups.len() {
        if waiting[at].0 > now {
            at += 1;
            continue;
        }
        let (_, answer) = waiting.swap_remove(at);
        let group = groups.swap_remove(at);
        queue.release(&ids(std::slice::from_ref(&group)));
        // This lane goes on with the others of its commit.
        queue.arrived.notify_one();
        let _ = answer.send(Err(reason.to_owned()));
    }
}

fn ids(groups: &[Group]) -> Vec<RecordId> {
    groups.iter().flat_map(|group| group.changes.iter().map(|row| row.id)).collect()
}
