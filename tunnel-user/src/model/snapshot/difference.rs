//! What differs between two snapshots, found without a look at what they share.

use std::{collections::BTreeSet, net::IpAddr};

use imbl::ordmap::DiffItem;

use super::Snapshot;
use crate::model::{Node, NodeName};

/// What became of one node from one snapshot to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeChange<'a> {
    /// It is new.
    Come(&'a Node),
    /// It is no longer there.
    Gone(&'a Node),
    /// It is another.
    Changed {
        /// As it was.
        before: &'a Node,
        /// As it is.
        now: &'a Node,
    },
}

impl Snapshot {
    /// The nodes that differ from those of the snapshot before, by name.
    pub fn changed_nodes<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = NodeChange<'a>> + use<'a> {
        before.nodes.diff(&self.nodes).map(|change| match change {
            DiffItem::Add(_, node) => NodeChange::Come(node),
            DiffItem::Remove(_, node) => NodeChange::Gone(node),
            DiffItem::Update { old, new } => NodeChange::Changed {
                before: old.1,
                now: new.1,
            },
        })
    }

    /// The addresses that may have another owner, an owner that has changed, or other claimants than before.
    pub fn changed_addresses(&self, before: &Self) -> BTreeSet<IpAddr> {
        let owners = before.owners.diff(&self.owners).map(|change| *key(&change));
        let conflicts = before.conflicts.diff(&self.conflicts);
        let conflicts = conflicts.map(|change| *key(&change));
        // An address that several claim is what its claimants are.
        let nodes = self.changed_nodes(before).flat_map(NodeChange::addresses);
        owners.chain(conflicts).chain(nodes).collect()
    }
}

impl<'a> NodeChange<'a> {
    /// The node's name.
    pub fn name(self) -> &'a NodeName {
        match self {
            Self::Come(node) | Self::Gone(node) | Self::Changed { now: node, .. } => &node.name,
        }
    }

    fn addresses(self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let (one, other) = match self {
            Self::Come(node) | Self::Gone(node) => (node, None),
            Self::Changed { before, now } => (before, Some(now)),
        };
        let nodes = std::iter::once(one).chain(other);
        nodes.flat_map(|node| node.addresses.iter().map(IpAddr::to_canonical))
    }
}

fn key<'a, K, V>(change: &DiffItem<'a, 'a, K, V>) -> &'a K {
    match change {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new, .. } => new.0,
    }
}
