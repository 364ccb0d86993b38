//! Sending commands to the servers that have their keys, and finding them again when they moved.
//!
//! Only what was provably not done is sent a second time: an error in the place of an answer, or a
//! connection that was never opened. What was handed to a connection that then was lost is unsure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Pipeline, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::connection::Link;
use super::error;
use super::requirements::Unfit;
use super::target::Target;
use super::topology::{Node, Nodes};

/// How often one command is sent while servers say that it belongs elsewhere.
const ROUNDS: usize = 5;
/// Pause before a round that a rebuilding cluster made necessary.
const PAUSE: Duration = Duration::from_millis(20);

/// A command and where its keys are.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) slot: u16,
    pub(super) command: Cmd,
    /// The script it runs.
    pub(super) script: Option<&'static str>,
}

/// How one command ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// An answer; it may be an error of the server.
    Said(Value, Target),
    /// It was not sent.
    NotSent(String),
    /// It was handed over and no answer came, or not from enough replicas.
    Unsure(String),
}

/// How to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// The connection to use on each server.
    pub(super) lane: usize,
    /// Acknowledgements asked of replicas.
    pub(super) replicas: u32,
    /// Whether sending twice is harmless, so that a lost connection is no end.
    pub(super) harmless: bool,
    /// For one answer.
    pub(super) timeout: Duration,
    /// For everything.
    pub(super) deadline: Instant,
}

/// Where a command goes, and how.
#[derive(Clone, Default)]
struct Way {
    /// Instead of the map's.
    node: Option<Arc<Node>>,
    /// The script goes first: the server does not have it.
    load: bool,
}

/// What goes to one server in a round.
struct Parcel {
    node: Arc<Node>,
    asking: bool,
    load: Option<&'static str>,
    members: Vec<usize>,
}

/// Sends all commands and gives their outcomes in order.
pub(super) async fn send(nodes: &Nodes, asks: &[Ask], terms: Terms) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; asks.len()];
    let mut ways = vec![Way::default(); asks.len()];
    for round in 1..=ROUNDS {
        let pending: Vec<usize> =
            (0..asks.len()).filter(|at| needs_sending(outcomes[*at].as_ref())).collect();
        let moving = pending.iter().any(|at| outcomes[*at].is_some());
        if pending.is_empty() {
            break;
        }
        if round > 1 && moving {
            tokio::time::sleep(PAUSE.min(terms.deadline - Instant::now())).await;
        }
        for (at, outcome) in once(nodes, asks, &pending, &ways, terms).await {
            outcomes[at] = Some(outcome);
        }
        let mut lost = false;
        for at in pending {
            match &outcomes[at] {
                Some(Outcome::Said(Value::ServerError(error), _)) => {
                    ways[at] = way_after(nodes, error, &ways[at]);
                }
                Some(Outcome::NotSent(_)) => lost = true,
                Some(Outcome::Unsure(_)) if terms.harmless => lost = true,
                // One unsure command makes all unsure: nothing is gained by sending the others.
                Some(Outcome::Unsure(_)) => {
                    nodes.set_stale();
                    return all(outcomes);
                }
                Some(Outcome::Said(..)) | None => {}
            }
        }
        if lost {
            nodes.set_stale();
            // Once more at most, by the map that is made for it.
            if round > 1 || Instant::now() >= terms.deadline {
                break;
            }
            for outcome in &mut outcomes {
                let sent = matches!(outcome, Some(Outcome::Unsure(_)) if !terms.harmless);
                if !sent && matches!(outcome, Some(Outcome::Unsure(_) | Outcome::NotSent(_))) {
                    *outcome = None;
                }
            }
        }
    }
    all(outcomes)
}

fn all(outcomes: Vec<Option<Outcome>>) -> Vec<Outcome> {
    let missing = || Outcome::NotSent("the Redis servers could not be asked".to_owned());
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect()
}

fn needs_sending(outcome: Option<&Outcome>) -> bool {
    match outcome {
        None => true,
        Some(Outcome::Said(Value::ServerError(error), _)) => {
            matches!(
                error::code(error),
                "NOSCRIPT" | "MOVED" | "ASK" | "TRYAGAIN" | "READONLY" | "MASTERDOWN"
            )
        }
        Some(Outcome::Said(..) | Outcome::NotSent(_) | Outcome::Unsure(_)) => false,
    }
}

/// Where a command goes after a server refused it.
fn way_after(nodes: &Nodes, error: &::redis::ServerError, way: &Way) -> Way {
    match error::code(error) {
        "NOSCRIPT" => Way { load: true, ..way.clone() },
        "ASK" => {
            let address = error.details().and_then(|detail| detail.split_whitespace().nth(1));
            // The script may be missing there too.
            Way { node: address.and_then(|address| nodes.node_at(address)), load: true }
        }
        // A replica that lost its primary says so before it says that it is one.
        "MOVED" | "READONLY" | "MASTERDOWN" => {
            nodes.set_stale();
            Way::default()
        }
        _ => way.clone(),
    }
}

/// One round: every server in question is asked once, all at the same time.
async fn once(
    nodes: &Nodes,
    asks: &[Ask],
    pending: &[usize],
    ways: &[Way],
    terms: Terms,
) -> Vec<(usize, Outcome)> {
    let not_sent = |members: &[usize], reason: &str| {
        members.iter().map(|at| (*at, Outcome::NotSent(reason.to_owned()))).collect()
    };
    let map = match timeout_at(terms.deadline, nodes.map()).await {
        Ok(Ok(map)) => map,
        Ok(Err(reason)) => return not_sent(pending, &reason),
        Err(_) => {
            let reason = "the Redis server cannot be reached: no primary was found in time";
            return not_sent(pending, reason);
        }
    };
    let mut outcomes = Vec::with_capacity(pending.len());
    let mut parcels: Vec<Parcel> = Vec::new();
    for at in pending {
        let (ask, way) = (&asks[*at], &ways[*at]);
        let Some(node) = way.node.as_ref().or_else(|| map.node(ask.slot)) else {
            nodes.set_stale();
            let reason = format!("no server of the Redis Cluster has slot {}", ask.slot);
            outcomes.push((*at, Outcome::NotSent(reason)));
            continue;
        };
        let asking = way.node.is_some();
        let load = ask.script.filter(|_| way.load);
        let fits = |parcel: &&mut Parcel| {
            Arc::ptr_eq(&parcel.node, node) && parcel.asking == asking && parcel.load == load
        };
        match parcels.iter_mut().find(fits) {
            Some(parcel) => parcel.members.push(*at),
            None => {
                let node = node.clone();
                parcels.push(Parcel { node, asking, load, members: vec![*at] });
            }
        }
    }
    let mut sending = JoinSet::new();
    let last = parcels.pop();
    for parcel in parcels {
        sending.spawn(deliver(parcel.commands(asks, terms), parcel, terms));
    }
    // The only one in most cases, for which no task is started.
    if let Some(parcel) = last {
        outcomes.extend(deliver(parcel.commands(asks, terms), parcel, terms).await);
    }
    while let Some(delivered) = sending.join_next().await {
        // A task that ended early leaves its commands without an outcome; see below.
        outcomes.extend(delivered.unwrap_or_default());
    }
    if outcomes.len() < pending.len() {
        let seen: HashSet<usize> = outcomes.iter().map(|(at, _)| *at).collect();
        let early = || Outcome::Unsure("a request to Redis ended early".to_owned());
        let rest = pending.iter().filter(|at| !seen.contains(at));
        outcomes.extend(rest.map(|at| (*at, early())).collect::<Vec<_>>());
    }
    outcomes
}

impl Parcel {
    fn commands(&self, asks: &[Ask], terms: Terms) -> Pipeline {
        let mut commands = Pipeline::with_capacity(self.members.len() + 2);
        if let Some(script) = self.load {
            commands.cmd("SCRIPT").arg("LOAD").arg(script);
        }
        for at in &self.members {
            if self.asking {
                commands.cmd("ASKING");
            }
            commands.add_command(asks[*at].command.clone());
        }
        if terms.replicas > 0 {
            // Less than the whole time, so that the answer comes before we stop waiting for it.
            let wait = terms.timeout.mul_f32(0.75).as_millis().max(1);
            commands.cmd("WAIT").arg(terms.replicas).arg(u64::try_from(wait).unwrap_or(u64::MAX));
        }
        commands
    }
}

/// Sends one parcel.
async fn deliver(commands: Pipeline, parcel: Parcel, terms: Terms) -> Vec<(usize, Outcome)> {
    let Parcel { node, asking, load, members } = parcel;
    let target = &node.target;
    let every = |outcome: &dyn Fn(String) -> Outcome, reason: String| {
        members.iter().map(|at| (*at, outcome(reason.clone()))).collect::<Vec<_>>()
    };
    let link: Arc<Link> = match timeout_at(terms.deadline, node.link(terms.lane)).await {
        Ok(Ok(link)) => link,
        Ok(Err(unfit)) => return every(&Outcome::NotSent, Unfit::into_reason(unfit)),
        Err(_) => {
            let reason = error::unreachable(target, "connecting took too long");
            return every(&Outcome::NotSent, reason);
        }
    };
    let until = terms.deadline.min(Instant::now() + terms.timeout);
    let mut answers = match timeout_at(until, link.ask(&commands)).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(reason)) => {
            node.drop_link(terms.lane, &link).await;
            return every(&Outcome::Unsure, error::unreachable(target, &reason));
        }
        Err(_) => {
            node.drop_link(terms.lane, &link).await;
            let reason = error::unreachable(target, &error::silent(terms.timeout));
            return every(&Outcome::Unsure, reason);
        }
    };
    let waited = if terms.replicas > 0 { answers.pop() } else { None };
    let mut answers = answers.into_iter().skip(usize::from(load.is_some()));
    let mut outcomes = Vec::with_capacity(members.len());
    for at in members {
        if asking {
            // The answer to ASKING.
            answers.next();
        }
        let outcome = match answers.next() {
            // Refused: it needs no replica.
            Some(answer @ Value::ServerError(_)) => Outcome::Said(answer, target.clone()),
            Some(answer) => match enough(target, waited.as_ref(), terms.replicas) {
                Ok(()) => Outcome::Said(answer, target.clone()),
                Err(reason) => Outcome::Unsure(reason),
            },
            None => Outcome::Unsure(error::unreachable(target, "an answer is missing")),
        };
        outcomes.push((at, outcome));
    }
    outcomes
}

/// Whether enough replicas acknowledged.
fn enough(target: &Target, waited: Option<&Value>, wanted: u32) -> Result<(), String> {
    match waited {
        None => Ok(()),
        Some(Value::Int(count)) if *count >= i64::from(wanted) => Ok(()),
        Some(Value::Int(count)) => Err(format!(
            "only {count} of {wanted} replicas of the Redis server {target} acknowledged in time"
        )),
        Some(Value::ServerError(error)) => Err(error::no(target, error)),
        Some(_) => Err(error::unreachable(target, "its answer to WAIT cannot be read")),
    }
}
