//! A store on a real server, and the replicas that share it.

use std::net::SocketAddr;
use std::sync::OnceLock;

use super::gateway::Exit;
use super::{Gateway, Setup};
use crate::servers::{Chaos, PgBouncer, Postgres, Redis, RedisCluster};

/// On what a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Redis,
    /// Three masters.
    Cluster,
}

impl Kind {
    /// Runs `test` on PostgreSQL and on Redis.
    pub(crate) fn both(test: impl FnMut(Kind)) {
        Self::each(&[Kind::Postgres, Kind::Redis], test);
    }

    /// Runs `test` on PostgreSQL, on Redis and on a Redis Cluster.
    pub(crate) fn all(test: impl FnMut(Kind)) {
        Self::each(&[Kind::Postgres, Kind::Redis, Kind::Cluster], test);
    }

    fn each(kinds: &[Kind], mut test: impl FnMut(Kind)) {
        for kind in kinds {
            // The last one printed is the one that failed.
            println!("on {kind:?}");
            test(*kind);
        }
    }
}

/// A server that a test may do with as it likes, or one that it shares with others.
enum Server {
    Postgres(Box<Postgres>),
    Redis(Box<Redis>),
    SharedPostgres(&'static Postgres),
    SharedRedis(&'static Redis),
    SharedCluster(&'static RedisCluster),
    /// With a proxy before each node, which the nodes name to clients.
    Cluster(Box<RedisCluster>, Vec<Chaos>),
    /// What a pooler before it is asked for, it asks the server.
    Pooled(Box<Postgres>, Box<PgBouncer>),
}

/// A store of its own on a server.
pub(crate) struct Shop {
    server: Server,
    /// The database in PostgreSQL, its number in Redis, the prefix in a cluster.
    place: String,
}

impl Shop {
    /// On the server of all tests: not to be disturbed.
    pub(crate) fn borrow(kind: Kind) -> Self {
        static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
        let (server, place) = match kind {
            Kind::Postgres => {
                let server = Postgres::shared();
                (Server::SharedPostgres(server), server.create_database())
            }
            Kind::Redis => {
                let server = Redis::shared();
                (Server::SharedRedis(server), server.fresh_database().to_string())
            }
            Kind::Cluster => {
                let cluster = CLUSTER.get_or_init(|| RedisCluster::start(&[]));
                (Server::SharedCluster(cluster), format!("test-{}", uuid::Uuid::new_v4()))
            }
        };
        Self { server, place }
    }

    /// On a server of its own, which may be disturbed.
    pub(crate) fn own(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => {
                let server = Box::new(Postgres::start(&[]));
                let place = server.create_database();
                Self { server: Server::Postgres(server), place }
            }
            Kind::Redis => {
                let server = Box::new(Redis::start(&[]));
                Self { server: Server::Redis(server), place: "0".to_owned() }
            }
            Kind::Cluster => {
                let cluster = RedisCluster::start(&[]);
                let proxies: Vec<_> =
                    cluster.nodes().iter().map(|node| Chaos::start(node.addr())).collect();
                cluster.announce(&proxies.iter().map(Chaos::port).collect::<Vec<_>>());
                let server = Server::Cluster(Box::new(cluster), proxies);
                Self { server, place: "oncegate".to_owned() }
            }
        }
    }

    /// On a PostgreSQL of its own behind a pooler in transaction mode, with fewer connections than
    /// its replicas open.
    pub(crate) fn pooled() -> Self {
        let server = Box::new(Postgres::start(&[]));
        let place = server.create_database();
        let pooler = Box::new(PgBouncer::start(&server, &[("default_pool_size", "4")]));
        Self { server: Server::Pooled(server, pooler), place }
    }

    /// The proxies before the nodes of its own cluster.
    pub(crate) fn proxies(&self) -> &[Chaos] {
        match &self.server {
            Server::Cluster(_, proxies) => proxies,
            _ => &[],
        }
    }

    /// Waits until its own cluster serves all its slots.
    pub(crate) fn until_whole(&self) {
        if let Server::Cluster(cluster, _) = &self.server {
            cluster.until_ready();
        }
    }

    /// The nodes of its own cluster.
    pub(crate) fn nodes(&self) -> &[Redis] {
        match &self.server {
            Server::Cluster(cluster, _) => cluster.nodes(),
            _ => &[],
        }
    }

    /// Where its server listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        match &self.server {
            Server::Postgres(server) => server.addr(),
            Server::SharedPostgres(server) => server.addr(),
            Server::Redis(server) => server.addr(),
            Server::SharedRedis(server) => server.addr(),
            Server::SharedCluster(cluster) => cluster.nodes()[0].addr(),
            Server::Cluster(_, proxies) => proxies[0].addr(),
            Server::Pooled(_, pooler) => pooler.addr(),
        }
    }

    /// The table of the configuration, with these further lines.
    pub(crate) fn table(&self, lines: &str) -> String {
        self.table_at(self.addr(), lines)
    }

    /// The same through another address, such as a proxy's.
    pub(crate) fn table_at(&self, addr: SocketAddr, lines: &str) -> String {
        let at = |server: &str, url: String| format!("[store.{server}]\nurl = {url:?}\n{lines}");
        match &self.server {
            Server::Postgres(server) => at("postgres", server.url_at(addr, &self.place)),
            Server::SharedPostgres(server) => at("postgres", server.url_at(addr, &self.place)),
            Server::Redis(server) => at("redis", server.url_at(addr, self.number())),
            Server::SharedRedis(server) => at("redis", server.url_at(addr, self.number())),
            Server::SharedCluster(cluster) => format!(
                "[store.redis]\nurls = {:?}\ncluster = true\nprefix = {:?}\n{lines}",
                cluster.urls(),
                self.place
            ),
            Server::Cluster(_, proxies) => {
                let urls: Vec<_> =
                    proxies.iter().map(|it| format!("redis://{}/0", it.addr())).collect();
                format!("[store.redis]\nurls = {urls:?}\ncluster = true\n{lines}")
            }
            Server::Pooled(server, _) => {
                at("postgres", server.url_at(addr, &self.place)) + "\nprepared = false"
            }
        }
    }

    fn number(&self) -> u32 {
        self.place.parse().expect("the number of a database")
    }

    /// So many replicas on it.
    #[track_caller]
    pub(crate) fn replicas(&self, setup: &Setup, count: usize) -> Vec<Gateway> {
        (0..count).map(|_| self.replica(setup, "")).collect()
    }

    /// One replica, with these further lines in the store's table.
    #[track_caller]
    pub(crate) fn replica(&self, setup: &Setup, lines: &str) -> Gateway {
        setup.elsewhere().on(self.table(lines)).start()
    }

    /// Starts one replica, or gives the exit of one that does not start.
    pub(crate) fn try_replica(&self, setup: &Setup) -> Result<Gateway, Exit> {
        setup.elsewhere().on(self.table("")).try_start()
    }

    /// One replica whose way to the server can be cut.
    #[track_caller]
    pub(crate) fn replica_behind(&self, setup: &Setup, lines: &str) -> (Gateway, Chaos) {
        let chaos = Chaos::start(self.addr());
        let gateway = setup.elsewhere().on(self.table_at(chaos.addr(), lines)).start();
        (gateway, chaos)
    }

    /// How many records are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        let counted = match &self.server {
            Server::Postgres(server) => server.run_sql_in(&self.place, IN_FLIGHT_SQL),
            Server::SharedPostgres(server) => server.run_sql_in(&self.place, IN_FLIGHT_SQL),
            Server::Pooled(server, _) => server.run_sql_in(&self.place, IN_FLIGHT_SQL),
            Server::Redis(server) => server.cli(&["-n", &self.place, "EVAL", IN_FLIGHT_LUA, "0"]),
            Server::SharedRedis(server) => {
                server.cli(&["-n", &self.place, "EVAL", IN_FLIGHT_LUA, "0"])
            }
            Server::SharedCluster(cluster) => return in_flight_on(cluster, &self.place),
            Server::Cluster(cluster, _) => return in_flight_on(cluster, &self.place),
        };
        counted.parse().expect("a count")
    }

    /// Removes all records, as an operator does who knows that nothing ran.
    pub(crate) fn forget_records(&self) {
        match &self.server {
            Server::Postgres(server) => server.run_sql_in(&self.place, FORGET_SQL),
            Server::SharedPostgres(server) => server.run_sql_in(&self.place, FORGET_SQL),
            Server::Redis(server) => server.cli(&["-n", &self.place, "EVAL", FORGET_LUA, "0"]),
            Server::SharedRedis(server) => {
                server.cli(&["-n", &self.place, "EVAL", FORGET_LUA, "0"])
            }
            Server::SharedCluster(_) | Server::Cluster(..) => panic!("not on a cluster"),
            Server::Pooled(server, _) => server.run_sql_in(&self.place, FORGET_SQL),
        };
    }

    /// Kills its own server.
    pub(crate) fn kill(&self) {
        match &self.server {
            Server::Postgres(server) | Server::Pooled(server, _) => server.kill(),
            Server::Redis(server) => server.kill(),
            _ => panic!("not on a shared server"),
        }
    }

    /// Starts its own server again.
    pub(crate) fn restart(&self) {
        match &self.server {
            Server::Postgres(server) | Server::Pooled(server, _) => server.restart(),
            Server::Redis(server) => server.restart(),
            _ => panic!("not on a shared server"),
        }
    }

    /// Stops its own server where it is.
    pub(crate) fn pause(&self) {
        match &self.server {
            Server::Postgres(server) | Server::Pooled(server, _) => server.pause(),
            Server::Redis(server) => server.pause(),
            _ => panic!("not on a shared server"),
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        match &self.server {
            Server::Postgres(server) | Server::Pooled(server, _) => server.resume(),
            Server::Redis(server) => server.resume(),
            _ => panic!("not on a shared server"),
        }
    }

    /// Its server and the database, if that is PostgreSQL.
    pub(crate) fn postgres(&self) -> Option<(&Postgres, &str)> {
        match &self.server {
            Server::Postgres(server) | Server::Pooled(server, _) => Some((server, &self.place)),
            Server::SharedPostgres(server) => Some((server, &self.place)),
            _ => None,
        }
    }

    /// Its own server, if that is Redis.
    pub(crate) fn redis(&self) -> Option<&Redis> {
        match &self.server {
            Server::Redis(server) => Some(server),
            _ => None,
        }
    }
}

fn in_flight_on(cluster: &RedisCluster, prefix: &str) -> usize {
    let script = IN_FLIGHT_LUA.replace("oncegate", prefix);
    let on =
        |node: &Redis| -> usize { node.cli(&["EVAL", &script, "0"]).parse().expect("a count") };
    cluster.nodes().iter().map(on).sum()
}

const IN_FLIGHT_SQL: &str = "SELECT count(*) FROM oncegate.record WHERE owner IS NOT NULL";
const FORGET_SQL: &str = "DELETE FROM oncegate.record";

/// Entries of `open` with an owner: 8 bytes of time, 16 of id, 16 of owner.
const IN_FLIGHT_LUA: &str = "local count = 0
for _, key in ipairs(redis.call('KEYS', 'oncegate:*:open')) do
  for _, entry in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if #entry > 24 then count = count + 1 end
  end
end
return count";

/// All but the markers of the store and the leases.
const FORGET_LUA: &str = "for _, key in ipairs(redis.call('KEYS', 'oncegate:*')) do
  if not string.match(key, ':store$') and not string.match(key, ':replicas$') then
    redis.call('DEL', key)
  end
end
return 0";
