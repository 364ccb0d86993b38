//! Which server has what, and the connections to it. How that is found, see `finding.rs`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connection::{Link, Login, Session};
use super::error;
use super::requirements::{self, Rules, Unfit};
use super::target::Target;

/// Connections for commits to each server, each used by one commit at a time.
pub(super) const LANES: usize = 4;
/// The connection that all readers share.
pub(super) const READS: usize = LANES;
/// The connection for leases and messages, which wait for nobody's reading.
pub(super) const SIGNALS: usize = LANES + 1;

/// Where to begin looking.
pub(super) struct Places {
    pub(super) entries: Vec<(Target, Login)>,
    /// The name of the primary, when the entries are Sentinels.
    pub(super) sentinel: Option<String>,
    pub(super) rules: Rules,
}

/// The servers in use.
pub(super) struct Nodes {
    pub(super) places: Places,
    map: RwLock<Arc<Map>>,
    /// Something that was said does not go with the map: it is made again before the next use.
    stale: AtomicBool,
    finding: Mutex<Shared<String>>,
}

/// Which node has which slots.
#[derive(Default)]
pub(super) struct Map {
    /// The first and the last slot of each range, in order.
    pub(super) ranges: Vec<(u16, u16, Arc<Node>)>,
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
    failed: Shared<Unfit>,
}

/// The last failure of something that several wait for: those who waited meanwhile share it,
/// instead of waiting each for a failure of their own, one after the other.
struct Shared<E>(Option<(Instant, E)>);

impl<E> Default for Shared<E> {
    fn default() -> Self {
        Self(None)
    }
}

impl<E: Clone> Shared<E> {
    fn since(&self, asked: Instant) -> Result<(), E> {
        match &self.0 {
            Some((at, failure)) if *at >= asked => Err(failure.clone()),
            Some(_) | None => Ok(()),
        }
    }

    fn set(&mut self, failure: &E) {
        self.0 = Some((Instant::now(), failure.clone()));
    }
}

/// Leaves the map stale when nothing was found, also when whoever looked gave up.
struct Found<'a> {
    nodes: &'a Nodes,
    anything: bool,
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        if !self.anything {
            self.nodes.set_stale();
        }
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

    /// The node with its connections if it is known.
    pub(super) fn node_of(&self, target: Target, login: &Login, rules: Rules) -> Arc<Node> {
        let same = self.ranges.iter().find(|(_, _, node)| node.target == target);
        match same {
            Some((_, _, node)) => node.clone(),
            None => Node::new(target, login.clone(), rules),
        }
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
        lane.failed.since(asked)?;
        let opened = match self.open().await {
            Ok(link) => self.succeed(lane.lost.as_ref(), link).await.map_err(Unfit::Away),
            unfit => unfit,
        };
        match opened {
            Ok(link) => {
                let link = Arc::new(link);
                lane.lost = None;
                lane.link = Some(link.clone());
                Ok(link)
            }
            Err(replica @ Unfit::Replica(_)) => Err(replica),
            Err(unfit) => {
                lane.failed.set(&unfit);
                Err(unfit)
            }
        }
    }

    /// Ends what a connection takes the place of.
    async fn succeed(&self, lost: Option<&Session>, link: Link) -> Result<Link, String> {
        let Some(lost) = lost else { return Ok(link) };
        match tokio::time::timeout(self.login.patience(), lost.end(&link)).await {
            Ok(Ok(())) => Ok(link),
            Ok(Err(reason)) => Err(error::unreachable(&self.target, &reason)),
            Err(_) => {
                let silent = error::silent(self.login.patience());
                Err(error::unreachable(&self.target, &silent))
            }
        }
    }

    pub(super) async fn open(&self) -> Result<Link, Unfit> {
        let opening = async {
            let link = Link::open(&self.target, &self.login).await.map_err(Unfit::Away)?;
            let lost = |reason: String| Unfit::Away(error::unreachable(&self.target, &reason));
            link.introduce().await.map_err(lost)?;
            requirements::examine(&link, &self.target, self.rules).await?;
            Ok(link)
        };
        let patience = self.login.patience();
        tokio::time::timeout(patience, opening).await.unwrap_or_else(|_| {
            Err(Unfit::Away(error::unreachable(&self.target, &error::silent(patience))))
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

    pub(super) fn known(&self) -> Arc<Map> {
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
        let mut found = Found { nodes: self, anything: false };
        match self.find().await {
            Ok(map) => {
                let map = Arc::new(map);
                *self.map.write().unwrap_or_else(PoisonError::into_inner) = map.clone();
                found.anything = true;
                Ok(map)
            }
            Err(reason) => {
                last.set(&reason);
                Err(reason)
            }
        }
    }

    /// A node by its address, for a redirection.
    pub(super) fn node_at(&self, address: &str) -> Option<Arc<Node>> {
        let (host, port) = address.rsplit_once(':')?;
        let target = Target { host: host.to_owned(), port: port.parse().ok()? };
        Some(self.known().node_of(target, &self.places.entries.first()?.1, self.places.rules))
    }
}
