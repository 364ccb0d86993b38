//! A Redis primary with replicas.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::redis::Redis;
use super::until;

/// A primary and its replicas. Replication is asynchronous: a failover may lose what `WAIT` has not
/// confirmed.
#[derive(Debug)]
pub(crate) struct RedisReplicas {
    servers: Vec<Redis>,
    primary: AtomicUsize,
}

impl RedisReplicas {
    /// Starts a primary and `replicas` more; `settings` go to all. Ready when all follow.
    pub(crate) fn start(replicas: usize, settings: &[(&str, &str)]) -> Self {
        let primary = Redis::start(settings);
        let source = format!("127.0.0.1 {}", primary.port());
        let password = settings.iter().find(|(name, _)| *name == "requirepass");
        let mut own = settings.to_vec();
        own.push(("replicaof", &source));
        own.extend(password.map(|(_, value)| ("masterauth", *value)));
        let followers = (0..replicas).map(|_| Redis::start(&own));
        let servers = std::iter::once(primary).chain(followers).collect();
        let group = Self { servers, primary: AtomicUsize::new(0) };
        group.until_linked();
        group
    }

    /// The present primary.
    pub(crate) fn primary(&self) -> &Redis {
        &self.servers[self.primary.load(Ordering::SeqCst)]
    }

    /// All servers; the first was the primary at the start.
    pub(crate) fn servers(&self) -> &[Redis] {
        &self.servers
    }

    /// Kills the primary, makes the replica that has most its successor, and lets the others follow
    /// it. The old one stays down; started again it takes writes as if nothing had happened.
    pub(crate) fn fail_over(&self) -> &Redis {
        self.primary().kill();
        let next = self
            .servers
            .iter()
            .enumerate()
            .filter(|(_, server)| server.runs())
            .max_by_key(|(_, server)| info(server, "slave_repl_offset").parse::<u64>().ok());
        let (index, next) = next.expect("a living replica");
        next.cli(&["REPLICAOF", "NO", "ONE"]);
        self.primary.store(index, Ordering::SeqCst);
        for follower in self.followers() {
            follower.cli(&["REPLICAOF", "127.0.0.1", &next.port().to_string()]);
        }
        self.until_linked();
        next
    }

    /// Waits until every running replica follows the primary.
    pub(crate) fn until_linked(&self) {
        for follower in self.followers() {
            until("a replica follows its primary", || {
                match (info(follower, "master_port"), info(follower, "master_link_status")) {
                    (port, link) if port == self.primary().port().to_string() && link == "up" => {
                        Ok(())
                    }
                    (port, link) => Err(format!("port {port}, link {link}\n{}", follower.log())),
                }
            });
        }
        let wanted = self.followers().count().to_string();
        until("the primary has its replicas", || {
            // `online`: it may send them writes. Only those count for `WAIT`.
            let all = self.primary().cli(&["INFO", "replication"]);
            let online = all.matches("state=online").count().to_string();
            if online == wanted { Ok(()) } else { Err(format!("{online} of {wanted} online")) }
        });
    }

    fn followers(&self) -> impl Iterator<Item = &Redis> {
        let primary = self.primary.load(Ordering::SeqCst);
        let others = self.servers.iter().enumerate().filter(move |(index, _)| *index != primary);
        others.map(|(_, server)| server).filter(|server| server.runs())
    }
}

/// A field of `INFO replication`; empty when there is none.
fn info(server: &Redis, name: &str) -> String {
    let all = server.cli(&["INFO", "replication"]);
    let value = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().trim_end().to_owned()
}
