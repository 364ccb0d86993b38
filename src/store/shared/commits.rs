//! Queue of the groups to commit, and the tasks that commit them.
//!
//! A lone change leaves at once. While a commit is in flight, arriving groups gather and share the
//! next commit; `batching` decides the moment and the size. Before a small commit leaves, ready
//! tasks may queue changes too. As many commits run concurrently as the engine has connections.
//! Groups that name the same record keep their order: a later group waits for the result of the
//! earlier group. What a connection could not send goes back to the queue for another connection:
//! a server that refuses new connections still serves the old ones.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::batching::{BatchSizer, CommitDecision};
use super::engine::{CasResult, Engine, EngineError, Group};
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::observe::metrics::record_commit;
use crate::shutdown::Shutdown;

/// Limit of queued groups; further groups are rejected at once.
const QUEUE: usize = 16_384;
/// Encoded size in bytes at which a commit is full.
const MAX_BYTES: usize = 4 << 20;
/// Limit of scheduler yields before a commit leaves, and limit of consecutive yields without a new
/// group: two yields lead from a reply on the network to the change that follows.
const MAX_YIELDS: usize = 8;
const MAX_QUIET_YIELDS: usize = 1;
/// First and longest pause before a failed commit is repeated.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Result of a group, or the reason for an unknown result.
pub(super) type CommitReply = Result<CasResult, String>;

/// Ids of records.
type RecordIds = HashSet<RecordId, BuildIdHasher>;

/// A queued group, and the channel for its result.
struct CommitRequest {
    group: Group,
    queued_at: Instant,
    /// End of the caller's wait; the group is not sent again after this time.
    deadline: Instant,
    /// Number of the connections that handed the group back.
    handed_back: usize,
    reply: oneshot::Sender<CommitReply>,
}

/// Queue of the groups to commit.
pub(super) struct CommitQueue {
    state: Mutex<QueueState>,
    queued: Notify,
}

struct QueueState {
    requests: VecDeque<CommitRequest>,
    /// Records of the groups in flight.
    in_flight: RecordIds,
    /// Number of commits in flight.
    commits: usize,
    /// Number of groups in the previous commit.
    previous: usize,
    /// True while a task sleeps until the queued groups have gathered long enough.
    watched: bool,
    sizer: BatchSizer,
    /// Time and cause of the last failure; `None` after a successful commit.
    failure: Option<(Instant, String)>,
}

/// Next step of a task that is free to commit.
enum NextCommit {
    /// Requests of the next commit; `more` if further groups are ready.
    Batch { requests: Vec<CommitRequest>, more: bool },
    /// The queued groups may gather until this time.
    Gather(Instant),
    /// No group is ready.
    Empty,
}

impl CommitQueue {
    /// An empty queue for a process on `cores` cores.
    pub(super) fn new(cores: usize) -> Self {
        let state = QueueState {
            requests: VecDeque::new(),
            in_flight: RecordIds::default(),
            commits: 0,
            previous: 0,
            watched: false,
            sizer: BatchSizer::new(cores),
            failure: None,
        };
        Self { state: Mutex::new(state), queued: Notify::new() }
    }

    /// Queues a group. The group is committed even if the caller drops the receiver.
    pub(super) fn push(
        &self,
        group: Group,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<CommitReply>, String> {
        let (reply, result) = oneshot::channel();
        let mut state = self.lock();
        if state.requests.len() >= QUEUE {
            return Err(format!("the store is too slow: {QUEUE} changes are queued already"));
        }
        state.requests.push_back(CommitRequest {
            group,
            queued_at: Instant::now(),
            deadline,
            handed_back: 0,
            reply,
        });
        let wake = !state.watched || state.requests.len() == state.sizer.concurrent_size();
        drop(state);
        if wake {
            self.queued.notify_one();
        }
        Ok(result)
    }

    /// Waits for the requests of the next commit.
    async fn next_batch(&self) -> Vec<CommitRequest> {
        loop {
            let queued = self.queued.notified();
            self.gather_ready().await;
            let next = self.lock().next_commit(Instant::now());
            match next {
                NextCommit::Batch { requests, more } => {
                    if more {
                        // Wakes a second task, which commits or watches the remaining groups.
                        self.queued.notify_one();
                    }
                    return requests;
                }
                NextCommit::Gather(until) => tokio::select! {
                    () = queued => {}
                    () = sleep_until(until) => {}
                },
                NextCommit::Empty => queued.await,
            }
        }
    }

    /// Yields to ready tasks until no further groups arrive.
    ///
    /// Groups that are ready in this process cost no wait. Without the yields, a commit would carry
    /// only the groups queued by chance before this task ran.
    async fn gather_ready(&self) {
        let (mut seen, mut quiet) = (0, 0);
        for _ in 0..MAX_YIELDS {
            let (queued, suffices) = self.lock().gathered();
            quiet = if queued > seen { 0 } else { quiet + 1 };
            if queued == 0 || suffices || quiet > MAX_QUIET_YIELDS {
                return;
            }
            seen = queued;
            tokio::task::yield_now().await;
        }
    }

    /// Cause of the last failure, unless a commit succeeded since or the failure is older than
    /// `within`.
    pub(super) fn failure(&self, within: Duration) -> Option<String> {
        let failure = self.lock().failure.clone();
        failure.filter(|(at, _)| at.elapsed() <= within).map(|(_, reason)| reason)
    }

    /// Takes back what certainly changed nothing, ahead of the other requests.
    fn put_back(&self, requests: Vec<CommitRequest>) {
        let mut state = self.lock();
        for mut request in requests.into_iter().rev() {
            for change in &request.group.changes {
                state.in_flight.remove(&change.id);
            }
            request.handed_back += 1;
            state.requests.push_front(request);
        }
        drop(state);
        self.queued.notify_one();
    }

    /// Unblocks the groups that wait for these records.
    fn release(&self, ids: &[RecordId]) {
        let mut state = self.lock();
        for id in ids {
            state.in_flight.remove(id);
        }
    }

    /// Records a successful commit of `rows` changes.
    fn record_success(&self, rows: usize, duration: Duration) {
        let mut state = self.lock();
        state.failure = None;
        state.sizer.record(rows, duration);
    }

    /// Records the end of a commit; the task continues with the next commit.
    fn commit_ended(&self) {
        let mut state = self.lock();
        state.commits = state.commits.saturating_sub(1);
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No code under the lock can leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Number of queued groups, and whether the number suffices for a commit. Zero for a lone group
    /// after a lone group: sequential changes do not wait for company.
    fn gathered(&self) -> (usize, bool) {
        let alone = self.requests.len() == 1 && self.previous <= 1 && self.commits == 0;
        let groups = if alone { 0 } else { self.requests.len() };
        (groups, self.sizer.suffices(groups))
    }

    /// Takes the next commit off the queue, or tells the task to wait.
    fn next_commit(&mut self, now: Instant) -> NextCommit {
        self.watched = false;
        let Some(first) = self.requests.front() else { return NextCommit::Empty };
        let queued = (self.requests.len(), first.queued_at);
        let groups = match self.sizer.decide(queued, self.commits, self.previous, now) {
            CommitDecision::Commit(groups) => groups,
            CommitDecision::WaitUntil(until) => {
                self.watched = true;
                return NextCommit::Gather(until);
            }
        };
        let (requests, more) = self.take_batch(groups);
        if requests.is_empty() {
            return NextCommit::Empty;
        }
        self.commits += 1;
        self.previous = requests.len();
        NextCommit::Batch { requests, more }
    }

    /// Takes at most `groups` requests, and reports whether further groups are ready.
    fn take_batch(&mut self, groups: usize) -> (Vec<CommitRequest>, bool) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        // Records of the skipped groups: a later group must not overtake a skipped group.
        let mut blocked = RecordIds::default();
        let mut skipped = VecDeque::new();
        while batch.len() < groups && bytes < MAX_BYTES {
            let Some(request) = self.requests.pop_front() else { break };
            let ids = || request.group.changes.iter().map(|change| change.id);
            if ids().any(|id| self.in_flight.contains(&id) || blocked.contains(&id)) {
                blocked.extend(ids());
                skipped.push_back(request);
                continue;
            }
            self.in_flight.extend(ids());
            bytes += request.group.bytes();
            batch.push(request);
        }
        let more = !batch.is_empty() && !self.requests.is_empty();
        while let Some(request) = skipped.pop_back() {
            self.requests.push_front(request);
        }
        (batch, more)
    }
}

/// Commits queued groups on one connection, batch after batch, until shutdown.
pub(super) async fn run_connection<E: Engine>(
    engine: Arc<E>,
    queue: Arc<CommitQueue>,
    connection: usize,
    mut shutdown: Shutdown,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let done = tokio::select! {
            batch = queue.next_batch() => commit(&*engine, &queue, connection, batch).await,
            () = shutdown.wait() => return,
        };
        queue.commit_ended();
        if done {
            pause = FIRST_PAUSE;
            continue;
        }
        // Other connections are first to take what this one could not send.
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.wait() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Commits a batch, repeating until the groups have results or the callers stopped waiting. False
/// if the batch was handed back to the queue.
async fn commit<E: Engine>(
    engine: &E,
    queue: &CommitQueue,
    connection: usize,
    mut requests: Vec<CommitRequest>,
) -> bool {
    let mut pause = FIRST_PAUSE;
    let mut reason = String::from("the change was not sent in time");
    loop {
        drop_expired(queue, &mut requests, &reason);
        if requests.is_empty() {
            return true;
        }
        let sent = Instant::now();
        let mut groups = Vec::with_capacity(requests.len());
        groups.extend(requests.iter_mut().map(|request| std::mem::take(&mut request.group)));
        let result = engine.commit(connection, &groups).await;
        let is_untouched = matches!(result, Err(EngineError::Rejected(_)));
        match result {
            Ok(results) if results.len() == groups.len() => {
                let rows = groups.iter().map(|group| group.changes.len()).sum();
                queue.record_success(rows, sent.elapsed());
                record_commit(rows);
                queue.release(&ids(&groups));
                for (request, result) in requests.into_iter().zip(results) {
                    // An error means a caller that is gone; its change stands all the same.
                    let _ = request.reply.send(Ok(result));
                }
                return true;
            }
            Ok(_) => {
                // Would be a bug of the engine; the effect of the commit is unknown.
                groups.iter_mut().for_each(|group| group.resent = true);
                reason = String::from("the store answered with a wrong number of results");
            }
            Err(error) => {
                if let EngineError::Indeterminate(_) = error {
                    groups.iter_mut().for_each(|group| group.resent = true);
                }
                error.reason().clone_into(&mut reason);
            }
        }
        for (request, group) in requests.iter_mut().zip(groups) {
            request.group = group;
        }
        queue.lock().failure = Some((Instant::now(), reason.clone()));
        tracing::debug!(error = reason, "a commit failed and is repeated");
        // A group whose first commit may yet be applied stays with its connection, which ends the
        // session of that commit before it sends again.
        let others = engine.connections().saturating_sub(1);
        let may_move =
            |request: &CommitRequest| !request.group.resent && request.handed_back < others;
        if is_untouched && requests.iter().all(may_move) {
            queue.put_back(requests);
            return false;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Gives up the groups whose deadline has passed.
fn drop_expired(queue: &CommitQueue, requests: &mut Vec<CommitRequest>, reason: &str) {
    let now = Instant::now();
    let mut at = 0;
    while at < requests.len() {
        if requests[at].deadline > now {
            at += 1;
            continue;
        }
        let request = requests.swap_remove(at);
        queue.release(&ids(std::slice::from_ref(&request.group)));
        // Wakes a second task for the unblocked groups: this task keeps its remaining groups.
        queue.queued.notify_one();
        let _ = request.reply.send(Err(reason.to_owned()));
    }
}

fn ids(groups: &[Group]) -> Vec<RecordId> {
    groups.iter().flat_map(|group| group.changes.iter().map(|change| change.id)).collect()
}
