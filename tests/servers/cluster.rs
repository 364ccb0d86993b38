//! A Redis Cluster of three masters.

use super::redis::Redis;
use super::until;

/// The nodes' slots, all of them.
const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Three masters without replicas.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the nodes; `settings` go to all. Ready when every node says the cluster is; a fresh
    /// master waits two seconds before it does.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let mut all = vec![("cluster-enabled", "yes"), ("cluster-node-timeout", "2000")];
        all.extend(settings);
        let nodes: Vec<_> = SLOTS.iter().map(|_| Redis::start(&all)).collect();
        for (epoch, (node, (first, last))) in nodes.iter().zip(SLOTS).enumerate() {
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(epoch + 1).to_string()]);
        }
        for node in &nodes[1..] {
            let bus = node.bus().expect("a node of a cluster").to_string();
            nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &bus]);
        }
        let cluster = Self { nodes };
        cluster.until_ready();
        cluster
    }

    /// The nodes, in the order of their slots.
    pub(crate) fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The URL of every node.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// The node that keeps a key.
    pub(crate) fn owner(&self, key: &str) -> &Redis {
        let slot =
            self.nodes.iter().find_map(|node| node.try_cli(&["CLUSTER", "KEYSLOT", key]).ok());
        let slot: u16 = slot.and_then(|slot| slot.parse().ok()).expect("the slot of a key");
        let index = SLOTS.iter().position(|(first, last)| (*first..=*last).contains(&slot));
        &self.nodes[index.expect("a slot of the cluster")]
    }

    /// Makes the nodes name these ports to clients, in their order: proxies before them. They keep
    /// it over a restart.
    pub(crate) fn announce(&self, ports: &[u16]) {
        assert_eq!(ports.len(), self.nodes.len(), "a port for each node");
        for (node, port) in self.nodes.iter().zip(ports) {
            node.cli(&["CONFIG", "SET", "cluster-announce-port", &port.to_string()]);
            node.cli(&["CONFIG", "REWRITE"]);
        }
        for node in &self.nodes {
            until("the nodes learn each other's new ports", || {
                let slots = node.cli(&["CLUSTER", "SLOTS"]);
                let missing =
                    ports.iter().find(|port| !slots.lines().any(|line| line == port.to_string()));
                missing.map_or(Ok(()), |port| Err(format!("no {port} in\n{slots}")))
            });
        }
    }

    /// Waits until every node says that all slots are served, as after a restart of one.
    pub(crate) fn until_ready(&self) {
        let wanted =
            ["cluster_state:ok".to_owned(), format!("cluster_known_nodes:{}", SLOTS.len())];
        for node in &self.nodes {
            until("the cluster serves all slots", || {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let ready = wanted.iter().all(|line| info.contains(line.as_str()));
                if ready { Ok(()) } else { Err(format!("{info}\n{}", node.log())) }
            });
        }
    }
}
