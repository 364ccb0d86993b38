//! Dispatch of commands to servers by slot, and redirection when slots move.
//!
//! A command is sent a second time only when it was provably not executed: an error in place of an
//! answer, or a connection that was never opened. A command that was handed to a connection which
//! was then lost is indeterminate. The client library's cluster mode does not keep the two apart;
//! see docs/dependencies.md.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Pipeline, ServerError, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::address::ServerAddress;
use super::command::SlotCommand;
use super::error;
use super::node::RedisNode;
use super::requirements::UnusableServer;
use super::slot_map::SlotMap;
use super::topology::Topology;

/// Rounds of sending, while servers redirect commands.
const ROUNDS: usize = 5;
/// Pause before a round after a redirection.
const REDIRECTION_PAUSE: Duration = Duration::from_millis(20);

/// The outcome of a command.
#[derive(Debug, Clone)]
pub(super) enum CommandOutcome {
    /// An answer, possibly the server's error.
    Answered(Value, ServerAddress),
    /// Certainly not sent.
    NotSent(String),
    /// Handed to a connection without an answer, or without acknowledgements of enough replicas.
    Indeterminate(String),
}

/// Connection, limits and guarantees of a dispatch.
#[derive(Debug, Clone, Copy)]
pub(super) struct DispatchPolicy {
    /// Index of the connection to use on every server.
    pub(super) connection: usize,
    /// Acknowledgements required of replicas.
    pub(super) replicas: u32,
    /// Executing a command twice is harmless, so commands of a lost connection are sent again.
    pub(super) idempotent: bool,
    /// Time limit for an answer.
    pub(super) timeout: Duration,
    /// End of the whole dispatch.
    pub(super) deadline: Instant,
}

/// Deviations from the slot map for a command.
#[derive(Clone, Default)]
struct Redirection {
    /// Server named by a redirection, in place of the map's; the command then follows `ASKING`.
    node: Option<Arc<RedisNode>>,
    /// The server does not have the script yet: `SCRIPT LOAD` goes first.
    load_script: bool,
}

/// The commands for a server in a round.
struct ServerBatch {
    node: Arc<RedisNode>,
    asking: bool,
    load_script: Option<&'static str>,
    /// Indexes of the commands.
    members: Vec<usize>,
}

/// Sends the commands and gives the outcomes in order.
pub(super) async fn send(
    topology: &Topology,
    commands: &[SlotCommand],
    policy: DispatchPolicy,
) -> Vec<CommandOutcome> {
    let mut outcomes: Vec<Option<CommandOutcome>> = vec![None; commands.len()];
    let mut redirections = vec![Redirection::default(); commands.len()];
    for round in 1..=ROUNDS {
        let pending: Vec<usize> =
            (0..commands.len()).filter(|at| needs_sending(outcomes[*at].as_ref())).collect();
        if pending.is_empty() {
            break;
        }
        let redirected = pending.iter().any(|at| outcomes[*at].is_some());
        if round > 1 && redirected {
            let left = policy.deadline - Instant::now();
            tokio::time::sleep(REDIRECTION_PAUSE.min(left)).await;
        }
        for (at, outcome) in send_once(topology, commands, &pending, &redirections, policy).await {
            outcomes[at] = Some(outcome);
        }
        let mut lost = false;
        for at in pending {
            match &outcomes[at] {
                Some(CommandOutcome::Answered(Value::ServerError(error), _)) => {
                    redirections[at] = redirection_after(topology, error, &redirections[at]);
                }
                Some(CommandOutcome::NotSent(_)) => lost = true,
                Some(CommandOutcome::Indeterminate(_)) if policy.idempotent => lost = true,
                // One indeterminate command makes the whole commit indeterminate: nothing is gained
                // by sending the others.
                Some(CommandOutcome::Indeterminate(_)) => {
                    topology.mark_stale();
                    return complete(outcomes);
                }
                Some(CommandOutcome::Answered(..)) | None => {}
            }
        }
        if lost {
            topology.mark_stale();
            // At most once more, by the map that is then made anew.
            if round > 1 || Instant::now() >= policy.deadline {
                break;
            }
            for outcome in &mut outcomes {
                if may_be_sent_again(outcome.as_ref(), policy) {
                    *outcome = None;
                }
            }
        }
    }
    complete(outcomes)
}

fn complete(outcomes: Vec<Option<CommandOutcome>>) -> Vec<CommandOutcome> {
    let missing = || CommandOutcome::NotSent("the Redis servers could not be asked".to_owned());
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect()
}

/// True for a command of a connection that was lost or never opened, if sending it again is
/// harmless.
fn may_be_sent_again(outcome: Option<&CommandOutcome>, policy: DispatchPolicy) -> bool {
    match outcome {
        Some(CommandOutcome::NotSent(_)) => true,
        Some(CommandOutcome::Indeterminate(_)) => policy.idempotent,
        Some(CommandOutcome::Answered(..)) | None => false,
    }
}

/// True for a command that was not sent yet, or whose error proves that another server, or the same
/// one with the script, has to execute it.
fn needs_sending(outcome: Option<&CommandOutcome>) -> bool {
    match outcome {
        None => true,
        Some(CommandOutcome::Answered(Value::ServerError(error), _)) => {
            matches!(
                error::code(error),
                "NOSCRIPT" | "MOVED" | "ASK" | "TRYAGAIN" | "READONLY" | "MASTERDOWN"
            )
        }
        Some(
            CommandOutcome::Answered(..)
            | CommandOutcome::NotSent(_)
            | CommandOutcome::Indeterminate(_),
        ) => false,
    }
}

/// The redirection of a command after a server's error.
fn redirection_after(
    topology: &Topology,
    error: &ServerError,
    redirection: &Redirection,
) -> Redirection {
    match error::code(error) {
        "NOSCRIPT" => Redirection { load_script: true, ..redirection.clone() },
        "ASK" => {
            let address = error.details().and_then(|detail| detail.split_whitespace().nth(1));
            let node = address.and_then(|address| topology.node_at(address));
            // The script may be missing on that server too.
            Redirection { node, load_script: true }
        }
        // A replica that lost its primary reports that before it reports its role.
        "MOVED" | "READONLY" | "MASTERDOWN" => {
            topology.mark_stale();
            Redirection::default()
        }
        _ => redirection.clone(),
    }
}

/// Sends the pending commands once: a batch to every server in question, concurrently.
async fn send_once(
    topology: &Topology,
    commands: &[SlotCommand],
    pending: &[usize],
    redirections: &[Redirection],
    policy: DispatchPolicy,
) -> Vec<(usize, CommandOutcome)> {
    let not_sent = |reason: &str| {
        pending.iter().map(|at| (*at, CommandOutcome::NotSent(reason.to_owned()))).collect()
    };
    let map = match timeout_at(policy.deadline, topology.map()).await {
        Ok(Ok(map)) => map,
        Ok(Err(reason)) => return not_sent(&reason),
        Err(_) => {
            return not_sent("the Redis server cannot be reached: no primary was found in time");
        }
    };
    let (mut batches, mut outcomes) = batches_of(&map, commands, pending, redirections);
    if !outcomes.is_empty() {
        topology.mark_stale();
    }
    let mut sending = JoinSet::new();
    let last = batches.pop();
    for batch in batches {
        sending.spawn(deliver(batch.pipeline(commands, policy), batch, policy));
    }
    // Mostly the only batch: no task is started for it.
    if let Some(batch) = last {
        outcomes.extend(deliver(batch.pipeline(commands, policy), batch, policy).await);
    }
    while let Some(delivered) = sending.join_next().await {
        // A task that ended early leaves its commands without an outcome, which follows below.
        outcomes.extend(delivered.unwrap_or_default());
    }
    if outcomes.len() < pending.len() {
        let seen: HashSet<usize> = outcomes.iter().map(|(at, _)| *at).collect();
        let reason = "a request to Redis ended early";
        let rest = pending.iter().filter(|at| !seen.contains(at));
        outcomes.extend(
            rest.map(|at| (*at, CommandOutcome::Indeterminate(reason.to_owned())))
                .collect::<Vec<_>>(),
        );
    }
    outcomes
}

/// Groups the pending commands by server. A command without a server for the slot gets an outcome
/// at once.
fn batches_of(
    map: &SlotMap,
    commands: &[SlotCommand],
    pending: &[usize],
    redirections: &[Redirection],
) -> (Vec<ServerBatch>, Vec<(usize, CommandOutcome)>) {
    let mut batches: Vec<ServerBatch> = Vec::new();
    let mut outcomes = Vec::with_capacity(pending.len());
    for at in pending {
        let (command, redirection) = (&commands[*at], &redirections[*at]);
        let Some(node) = redirection.node.as_ref().or_else(|| map.node(command.slot)) else {
            let reason = format!("no server of the Redis Cluster has slot {}", command.slot);
            outcomes.push((*at, CommandOutcome::NotSent(reason)));
            continue;
        };
        let asking = redirection.node.is_some();
        let load_script = command.script.filter(|_| redirection.load_script);
        let fits = |batch: &&mut ServerBatch| {
            Arc::ptr_eq(&batch.node, node)
                && batch.asking == asking
                && batch.load_script == load_script
        };
        match batches.iter_mut().find(fits) {
            Some(batch) => batch.members.push(*at),
            None => {
                let (node, members) = (node.clone(), vec![*at]);
                batches.push(ServerBatch { node, asking, load_script, members });
            }
        }
    }
    (batches, outcomes)
}

impl ServerBatch {
    fn pipeline(&self, commands: &[SlotCommand], policy: DispatchPolicy) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(self.members.len() + 2);
        if let Some(script) = self.load_script {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script);
        }
        for at in &self.members {
            if self.asking {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(commands[*at].command.clone());
        }
        if policy.replicas > 0 {
            // Shorter than the time limit, so that the count arrives before the wait for it ends.
            let wait = policy.timeout.mul_f32(0.75).as_millis().max(1);
            let wait = u64::try_from(wait).unwrap_or(u64::MAX);
            pipeline.cmd("WAIT").arg(policy.replicas).arg(wait);
        }
        pipeline
    }
}

/// Sends a batch and gives the outcomes of the commands.
async fn deliver(
    pipeline: Pipeline,
    batch: ServerBatch,
    policy: DispatchPolicy,
) -> Vec<(usize, CommandOutcome)> {
    let ServerBatch { node, asking, load_script, members } = batch;
    let address = &node.address;
    let all = |outcome: &dyn Fn(String) -> CommandOutcome, reason: String| {
        members.iter().map(|at| (*at, outcome(reason.clone()))).collect::<Vec<_>>()
    };
    let connection = match timeout_at(policy.deadline, node.connection(policy.connection)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(unusable)) => {
            return all(&CommandOutcome::NotSent, UnusableServer::into_reason(unusable));
        }
        Err(_) => {
            let reason = error::unreachable(address, "connecting took too long");
            return all(&CommandOutcome::NotSent, reason);
        }
    };
    let until = policy.deadline.min(Instant::now() + policy.timeout);
    let sent = timeout_at(until, connection.send(&pipeline)).await;
    let mut replies = match sent.unwrap_or_else(|_| Err(error::no_answer(policy.timeout))) {
        Ok(replies) => replies,
        Err(reason) => {
            node.abandon(policy.connection, &connection).await;
            return all(&CommandOutcome::Indeterminate, error::unreachable(address, &reason));
        }
    };
    let waited = if policy.replicas > 0 { replies.pop() } else { None };
    let mut replies = replies.into_iter().skip(usize::from(load_script.is_some()));
    let mut outcomes = Vec::with_capacity(members.len());
    for at in members {
        if asking {
            // The reply to ASKING.
            replies.next();
        }
        let outcome = match replies.next() {
            // An error speaks for itself: callers decide by its code, whatever replicas
            // acknowledged.
            Some(reply @ Value::ServerError(_)) => CommandOutcome::Answered(reply, address.clone()),
            Some(reply) => match check_replicas(address, waited.as_ref(), policy.replicas) {
                Ok(()) => CommandOutcome::Answered(reply, address.clone()),
                Err(reason) => CommandOutcome::Indeterminate(reason),
            },
            None => {
                let reason = error::unreachable(address, "an answer is missing");
                CommandOutcome::Indeterminate(reason)
            }
        };
        outcomes.push((at, outcome));
    }
    outcomes
}

/// Checks the reply to `WAIT`, if present, for enough acknowledgements.
fn check_replicas(
    address: &ServerAddress,
    waited: Option<&Value>,
    required: u32,
) -> Result<(), String> {
    match waited {
        None => Ok(()),
        Some(Value::Int(count)) if *count >= i64::from(required) => Ok(()),
        Some(Value::Int(count)) => Err(format!(
            "only {count} of {required} replicas of the Redis server {address} acknowledged in time"
        )),
        Some(Value::ServerError(error)) => Err(error::server_error(address, error)),
        Some(_) => Err(error::unreachable(address, "its answer to WAIT cannot be read")),
    }
}
