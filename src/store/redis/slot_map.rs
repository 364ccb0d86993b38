//! The map from hash slots to servers.

use std::sync::Arc;

use super::address::ServerAddress;
use super::connection::ConnectionSettings;
use super::keys::SLOTS;
use super::node::RedisNode;
use super::requirements::ServerRequirements;

/// Slot ranges and primaries. Without a cluster a single server holds every slot.
#[derive(Default)]
pub(super) struct SlotMap {
    /// First slot, last slot and server of every range, in order.
    ranges: Vec<(u16, u16, Arc<RedisNode>)>,
}

impl SlotMap {
    /// The map of a single server with every slot.
    pub(super) fn single(node: Arc<RedisNode>) -> Self {
        Self { ranges: vec![(0, SLOTS - 1, node)] }
    }

    /// The map of the ranges. A server with several ranges gets a single node.
    pub(super) fn of_ranges(mut ranges: Vec<(u16, u16, Arc<RedisNode>)>) -> Self {
        ranges.sort_by_key(|(first, _, _)| *first);
        let nodes = Self { ranges: ranges.clone() }.nodes();
        for (_, _, node) in &mut ranges {
            if let Some(first) = nodes.iter().find(|first| first.address == node.address) {
                *node = first.clone();
            }
        }
        Self { ranges }
    }

    /// The server of a slot.
    pub(super) fn node(&self, slot: u16) -> Option<&Arc<RedisNode>> {
        let at = self.ranges.partition_point(|(_, last, _)| *last < slot);
        let (first, _, node) = self.ranges.get(at)?;
        (*first <= slot).then_some(node)
    }

    /// The server with this address: the map's node with open connections, or a new node.
    pub(super) fn node_at(
        &self,
        address: ServerAddress,
        settings: &ConnectionSettings,
        requirements: ServerRequirements,
    ) -> Arc<RedisNode> {
        match self.ranges.iter().find(|(_, _, node)| node.address == address) {
            Some((_, _, node)) => node.clone(),
            None => RedisNode::new(address, settings.clone(), requirements),
        }
    }

    /// Every server once.
    pub(super) fn nodes(&self) -> Vec<Arc<RedisNode>> {
        let mut nodes: Vec<Arc<RedisNode>> = Vec::new();
        for (_, _, node) in &self.ranges {
            if !nodes.iter().any(|earlier| earlier.address == node.address) {
                nodes.push(node.clone());
            }
        }
        nodes
    }
}
