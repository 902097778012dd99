//! What differs between two snapshots, for the log.

use tracing::{debug, info};

use crate::model::{Node, NodeChange, NodeName, PortSet, Snapshot};

/// So many nodes are logged one by one; of a crowd, as at a first start, only the number.
const MOST_LOGGED: usize = 20;

/// The way from one snapshot to the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes<'a> {
    come: Vec<&'a NodeName>,
    gone: Vec<&'a NodeName>,
    /// As they were, and as they are.
    other: Vec<(&'a Node, &'a Node)>,
    ports_come: PortSet,
    ports_gone: PortSet,
    loopback_come: PortSet,
    loopback_gone: PortSet,
}

impl<'a> Changes<'a> {
    pub(super) fn between(old: &'a Snapshot, new: &'a Snapshot) -> Self {
        let mut changes = Self {
            ports_come: new.ports() - old.ports(),
            ports_gone: old.ports() - new.ports(),
            loopback_come: new.loopback_ports() - old.loopback_ports(),
            loopback_gone: old.loopback_ports() - new.loopback_ports(),
            ..Self::default()
        };
        for change in new.changed_nodes(old) {
            match change {
                NodeChange::Come(node) => changes.come.push(&node.name),
                NodeChange::Gone(node) => changes.gone.push(&node.name),
                NodeChange::Changed { before, now } => changes.other.push((before, now)),
            }
        }
        changes
    }

    pub(super) fn log(&self) {
        if self.come.len() + self.gone.len() + self.other.len() > MOST_LOGGED {
            info!(
                more = self.come.len(),
                fewer = self.gone.len(),
                changed = self.other.len(),
                "the tunnelled nodes have changed"
            );
        } else {
            self.log_nodes();
        }
        let (come, gone) = (numbers(&self.ports_come), numbers(&self.ports_gone));
        if !come.is_empty() || !gone.is_empty() {
            info!(more = ?come, fewer = ?gone, "the tunnelled ports have changed");
        }
        let (come, gone) = (numbers(&self.loopback_come), numbers(&self.loopback_gone));
        if !come.is_empty() || !gone.is_empty() {
            info!(more = ?come, fewer = ?gone, "the ports on the nodes' loopback have changed");
        }
        debug!(changes = ?self, "published a snapshot");
    }

    fn log_nodes(&self) {
        for node in &self.come {
            info!(%node, "node is tunnelled");
        }
        for node in &self.gone {
            info!(%node, "node is no longer tunnelled");
        }
        for (before, now) in &self.other {
            info!(
                node = %now.name, before = ?before.addresses, now = ?now.addresses,
                ports = ?numbers(&now.extra_ports), "node has changed"
            );
        }
    }
}

fn numbers(ports: &PortSet) -> Vec<u16> {
    ports.iter().map(|port| port.number()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::source::testing::ports;

    fn node(name: &str, address: &str) -> Node {
        Node {
            name: name.parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            extra_ports: PortSet::new(),
            closed_gate: None,
            admits: None,
        }
    }

    #[test]
    fn tells_what_came_went_and_changed() {
        let nodes = [
            node("a", "10.0.0.1"),
            node("b", "10.0.0.2"),
            node("c", "10.0.0.3"),
        ];
        let old = Snapshot::new(nodes, ports(&[9100, 9200]));
        let nodes = [
            node("b", "10.0.0.2"),
            node("c", "10.0.0.33"),
            node("d", "10.0.0.4"),
        ];
        let new = Snapshot::new(nodes, ports(&[9200, 9300])).with_loopback_ports(ports(&[9300]));
        let changes = Changes::between(&old, &new);
        let (a, d) = ("a".parse().unwrap(), "d".parse().unwrap());
        let (before, now) = (node("c", "10.0.0.3"), node("c", "10.0.0.33"));
        let expected = Changes {
            come: vec![&d],
            gone: vec![&a],
            other: vec![(&before, &now)],
            ports_come: ports(&[9300]),
            ports_gone: ports(&[9100]),
            loopback_come: ports(&[9300]),
            loopback_gone: ports(&[]),
        };
        assert_eq!(changes, expected);
        assert_eq!(Changes::between(&new, &new), Changes::default());
    }
}
