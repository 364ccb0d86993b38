//! Which server has what: finding the primary, alone, through Sentinels or of each slot of a
//! cluster, and the connections to it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::checks::{self, Rules, Unfit};
use super::find::{primary_of, slots_of};
use super::keys::SLOTS;
use super::link::{Link, Login, Session, Target};
use super::said;

/// Connections for commits to each server, each used by one commit at a time.
pub(super) const LANES: usize = 4;
/// The connection that all readers share.
pub(super) const READS: usize = LANES;
/// The connection for leases and messages, which wait for nobody's reading.
pub(super) const SIGNALS: usize = LANES + 1;

/// How long the other servers have to say that they are the primary too.
const GRACE: Duration = Duration::from_millis(250);

/// Where to begin looking.
pub(super) struct Places {
    pub(super) entries: Vec<(Target, Login)>,
    /// The name of the primary, when the entries are Sentinels.
    pub(super) sentinel: Option<String>,
    pub(super) rules: Rules,
}

/// The servers in use.
pub(super) struct Nodes {
    places: Places,
    map: RwLock<Arc<Map>>,
    /// Something that was said does not go with the map: it is made again before the next use.
    stale: AtomicBool,
    finding: Mutex<Shared>,
}

/// Which node has which slots.
#[derive(Default)]
pub(super) struct Map {
    /// The first and the last slot of each range, in order.
    ranges: Vec<(u16, u16, Arc<Node>)>,
}

/// A server and its connections.
pub(super) struct Node {
    pub(super) target: Target,
    login: Login,
    rules: Rules,
    lanes: [Mutex<Lane>; SIGNALS + 1],
}

#[derive(Default)]
struct Lane {
    link: Option<Arc<Link>>,
    /// Behind a connection that was given up; to be ended before another takes its place, so that
    /// nothing sent on it is done later than what is sent on the next.
    lost: Option<Session>,
    failed: Shared,
}

/// The last failure of something that several wait for: those who waited meanwhile share it,
/// instead of waiting each for a failure of their own, one after the other.
#[derive(Default)]
struct Shared(Option<(Instant, String)>);

impl Shared {
    fn since(&self, asked: Instant) -> Result<(), String> {
        match &self.0 {
            Some((at, reason)) if *at >= asked => Err(reason.clone()),
            Some(_) | None => Ok(()),
        }
    }

    fn set(&mut self, reason: &str) {
        self.0 = Some((Instant::now(), reason.to_owned()));
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let targets = self.places.entries.iter().map(|(target, _)| target.to_string());
        f.debug_list().entries(targets).finish()
    }
}

impl Map {
    pub(super) fn node(&self, slot: u16) -> Option<&Arc<Node>> {
        let at = self.ranges.partition_point(|(_, last, _)| *last < slot);
        let (first, _, node) = self.ranges.get(at)?;
        (*first <= slot).then_some(node)
    }

    /// Every server once.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        for (_, _, node) in &self.ranges {
            if !nodes.iter().any(|known| known.target == node.target) {
                nodes.push(node.clone());
            }
        }
        nodes
    }
}

impl Node {
    fn new(target: Target, login: Login, rules: Rules) -> Arc<Self> {
        Arc::new(Self { target, login, rules, lanes: Default::default() })
    }

    /// The connection of a lane, opened and examined when there is none.
    pub(super) async fn link(&self, lane: usize) -> Result<Arc<Link>, Unfit> {
        let asked = Instant::now();
        let mut lane = self.lanes[lane].lock().await;
        if let Some(link) = &lane.link {
            return Ok(link.clone());
        }
        lane.failed.since(asked).map_err(Unfit::Wrong)?;
        let opened = match self.open().await {
            Ok(link) => self.succeed(lane.lost.as_ref(), link).await.map_err(Unfit::Wrong),
            unfit => unfit,
        };
        match opened {
            Ok(link) => {
                let link = Arc::new(link);
                lane.lost = None;
                lane.link = Some(link.clone());
                Ok(link)
            }
            Err(Unfit::Wrong(reason)) => {
                lane.failed.set(&reason);
                Err(Unfit::Wrong(reason))
            }
            Err(replica @ Unfit::Replica(_)) => Err(replica),
        }
    }

    /// Ends what a connection takes the place of.
    async fn succeed(&self, lost: Option<&Session>, link: Link) -> Result<Link, String> {
        let Some(lost) = lost else { return Ok(link) };
        match tokio::time::timeout(self.login.patience(), lost.end(&link)).await {
            Ok(Ok(())) => Ok(link),
            Ok(Err(reason)) => Err(said::unreachable(&self.target, &reason)),
            Err(_) => {
                let silent = said::silent(self.login.patience());
                Err(said::unreachable(&self.target, &silent))
            }
        }
    }

    async fn open(&self) -> Result<Link, Unfit> {
        let opening = async {
            let link = Link::open(&self.target, &self.login).await.map_err(Unfit::Wrong)?;
            let lost = |reason: String| Unfit::Wrong(said::unreachable(&self.target, &reason));
            link.introduce().await.map_err(lost)?;
            checks::examine(&link, &self.target, self.rules).await?;
            Ok(link)
        };
        let patience = self.login.patience();
        tokio::time::timeout(patience, opening).await.unwrap_or_else(|_| {
            Err(Unfit::Wrong(said::unreachable(&self.target, &said::silent(patience))))
        })
    }

    /// Gives up a connection; the next who asks opens a new one.
    pub(super) async fn drop_link(&self, lane: usize, lost: &Arc<Link>) {
        let mut lane = self.lanes[lane].lock().await;
        if lane.link.as_ref().is_some_and(|link| Arc::ptr_eq(link, lost)) {
            lane.link = None;
            lane.lost = lost.session().cloned();
        }
    }

    /// A connection for listening.
    pub(super) async fn listen(
        &self,
        heard: impl Fn(::redis::PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> Result<Link, String> {
        Link::open_for_messages(&self.target, &self.login, heard).await
    }
}

impl Nodes {
    pub(super) fn new(places: Places) -> Self {
        Self {
            places,
            map: RwLock::default(),
            stale: AtomicBool::new(true),
            finding: Mutex::default(),
        }
    }

    /// The map is wrong: a server said so, or was lost.
    pub(super) fn set_stale(&self) {
        self.stale.store(true, Ordering::Release);
    }

    fn known(&self) -> Arc<Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The map, made again when it is stale.
    pub(super) async fn map(&self) -> Result<Arc<Map>, String> {
        if !self.stale.load(Ordering::Acquire) {
            return Ok(self.known());
        }
        let asked = Instant::now();
        let mut last = self.finding.lock().await;
        if !self.stale.load(Ordering::Acquire) {
            return Ok(self.known());
        }
        last.since(asked)?;
        // Before looking: what is said meanwhile counts for the next time.
        self.stale.store(false, Ordering::Release);
        match self.find().await {
            Ok(map) => {
                let map = Arc::new(map);
                *self.map.write().unwrap_or_else(PoisonError::into_inner) = map.clone();
                Ok(map)
            }
            Err(reason) => {
                self.set_stale();
                last.set(&reason);
                Err(reason)
            }
        }
    }

    /// A node by its address, for a redirection.
    pub(super) fn node_at(&self, address: &str) -> Option<Arc<Node>> {
        let (host, port) = address.rsplit_once(':')?;
        let target = Target { host: host.to_owned(), port: port.parse().ok()? };
        Some(self.node_of(target, &self.places.entries.first()?.1))
    }

    /// The node with its connections if it is known.
    fn node_of(&self, target: Target, login: &Login) -> Arc<Node> {
        let known = self.known();
        let same = known.ranges.iter().find(|(_, _, node)| node.target == target);
        match same {
            Some((_, _, node)) => node.clone(),
            None => Node::new(target, login.clone(), self.places.rules),
        }
    }

    async fn find(&self) -> Result<Map, String> {
        if self.places.rules.cluster {
            return self.find_cluster().await;
        }
        let node = match &self.places.sentinel {
            Some(name) => self.ask_sentinels(name).await?,
            None => self.find_primary().await?,
        };
        Ok(Map { ranges: vec![(0, SLOTS - 1, node)] })
    }

    /// The one primary among the URLs. Two are one too many: after a failover the old primary may
    /// have come back with what it knew, and nobody here can say which of them is right.
    async fn find_primary(&self) -> Result<Arc<Node>, String> {
        let mut asked = JoinSet::new();
        for (at, (target, login)) in self.places.entries.iter().enumerate() {
            let node = self.node_of(target.clone(), login);
            asked.spawn(async move {
                // Asked anew: an old connection says nothing of the role the server has now.
                let fit = node.open().await.map(drop);
                (at, node, fit)
            });
        }
        let mut answers = Vec::new();
        let mut until = None;
        loop {
            let answer = match until {
                None => asked.join_next().await,
                // Those that do not answer hold up nobody once there is a primary.
                Some(until) => timeout_at(until, asked.join_next()).await.unwrap_or_default(),
            };
            let Some(answer) = answer else { break };
            // A task that ended early has found nothing.
            let Ok(answer) = answer else { continue };
            if answer.2.is_ok() {
                until = until.or(Some(Instant::now() + GRACE));
            }
            answers.push(answer);
        }
        answers.sort_by_key(|(at, _, _)| *at);
        let mut primary: Option<Arc<Node>> = None;
        let (mut replica, mut wrong) = (None, None);
        for (_, node, fit) in answers {
            match fit {
                Ok(()) => match &primary {
                    Some(other) if other.target != node.target => {
                        return Err(format!(
                            "both {} and {} say that they are the primary; make one a replica of \
                             the other (REPLICAOF) or stop it",
                            other.target, node.target
                        ));
                    }
                    Some(_) | None => primary = Some(node),
                },
                Err(Unfit::Replica(reason)) => replica = replica.or(Some(reason)),
                Err(Unfit::Wrong(reason)) => wrong = wrong.or(Some(reason)),
            }
        }
        // A wrong primary says more than its replicas.
        primary.ok_or_else(|| wrong.or(replica).unwrap_or_else(|| "no Redis URL is set".to_owned()))
    }

    async fn ask_sentinels(&self, name: &str) -> Result<Arc<Node>, String> {
        let mut wrong = None;
        for (target, login) in &self.places.entries {
            let found = tokio::time::timeout(login.patience(), primary_of(target, login, name));
            let found = found.await.unwrap_or_else(|_| {
                Err(said::unreachable(target, &said::silent(login.patience())))
            });
            let fit = match found {
                Ok(primary) => {
                    let node = self.node_of(primary, login);
                    node.open().await.map(|_| node).map_err(Unfit::into_reason)
                }
                Err(reason) => Err(reason),
            };
            match fit {
                Ok(node) => return Ok(node),
                // Another Sentinel may know better.
                Err(reason) => wrong = wrong.or(Some(reason)),
            }
        }
        Err(wrong.unwrap_or_else(|| "no Sentinel is named in `urls`".to_owned()))
    }

    async fn find_cluster(&self) -> Result<Map, String> {
        let login = match self.places.entries.first() {
            Some((_, login)) if login.database() == 0 => login,
            Some(_) => return Err("a Redis Cluster has database 0 only; name no other".to_owned()),
            None => return Err("no Redis URL is set".to_owned()),
        };
        // Those known last come first: the URLs may be old.
        let mut targets: Vec<Target> =
            self.known().nodes().iter().map(|node| node.target.clone()).collect();
        for (target, _) in &self.places.entries {
            if !targets.contains(target) {
                targets.push(target.clone());
            }
        }
        let mut wrong = None;
        for target in &targets {
            let slots = tokio::time::timeout(login.patience(), slots_of(target, login));
            let found = slots.await.unwrap_or_else(|_| {
                Err(said::unreachable(target, &said::silent(login.patience())))
            });
            match found {
                Ok(ranges) => {
                    let ranges = ranges
                        .into_iter()
                        .map(|(first, last, target)| (first, last, self.node_of(target, login)));
                    let mut ranges: Vec<_> = ranges.collect();
                    ranges.sort_by_key(|(first, _, _)| *first);
                    return Ok(same_nodes(ranges));
                }
                Err(reason) => wrong = wrong.or(Some(reason)),
            }
        }
        Err(wrong.unwrap_or_else(|| "no Redis URL is set".to_owned()))
    }
}

/// A server that was not known yet gets one node for all its ranges.
fn same_nodes(mut ranges: Vec<(u16, u16, Arc<Node>)>) -> Map {
    let nodes = Map { ranges: ranges.clone() }.nodes();
    for (_, _, node) in &mut ranges {
        if let Some(first) = nodes.iter().find(|first| first.target == node.target) {
            *node = first.clone();
        }
    }
    Map { ranges }
}
