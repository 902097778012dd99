//! Where a client goes, by what it has said.

use super::{
    refusal::Refusal,
    server_name::{NoNode, node_named},
};
use crate::{
    model::{HttpsTarget, Snapshot, printable},
    tunnel::Destination,
};

/// What a client asks for.
pub(super) struct Asked<'a> {
    /// The name in its hello.
    pub(super) server_name: Option<&'a str>,
    /// What the port means at which it arrived.
    pub(super) target: HttpsTarget,
    /// Whether it may use ports that lead to a node's loopback.
    pub(super) may_use_loopback_ports: bool,
}

impl Asked<'_> {
    /// The node and its port.
    pub(super) fn destination(&self, snapshot: &Snapshot) -> Result<Destination, Refusal> {
        let name = self.server_name.ok_or(Refusal::NoServerName)?;
        let node = node_named(snapshot, name).map_err(|why| match why {
            NoNode::Unknown => Refusal::UnknownName(printable(name)),
            NoNode::Ambiguous => Refusal::AmbiguousName(printable(name)),
        })?;
        let port = match self.target {
            HttpsTarget::Kubelet => node.kubelet_port(),
            HttpsTarget::Port(port) => port,
        };
        if !self.may_use_loopback_ports && snapshot.loopback_ports().contains(&port) {
            return Err(Refusal::NotAllowed);
        }
        Ok(Destination::Node(node.name.clone(), port.number()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Node, PortSet, TunnelPort};

    fn port(number: u16) -> TunnelPort {
        TunnelPort::new(number).unwrap()
    }

    fn snapshot() -> Snapshot {
        let node = |name: &str, extra_ports: PortSet| Node {
            name: name.parse().unwrap(),
            addresses: Vec::new(),
            extra_ports,
            closed_gate: None,
            admits: None,
        };
        let nodes = [
            node("edge-1", PortSet::new()),
            node("edge-2", [port(10350)].into()),
        ];
        Snapshot::new(nodes, PortSet::new()).with_loopback_ports([port(9443)].into())
    }

    fn asked(name: &str, target: HttpsTarget) -> Result<Destination, Refusal> {
        let asked = Asked {
            server_name: Some(name),
            target,
            may_use_loopback_ports: false,
        };
        asked.destination(&snapshot())
    }

    fn port_of(node: &str, port: u16) -> Destination {
        Destination::Node(node.parse().unwrap(), port)
    }

    #[test]
    fn a_name_leads_to_that_nodes_kubelet_wherever_it_is_or_to_the_port_that_is_meant() {
        let other = HttpsTarget::Port(port(9100));
        assert_eq!(
            asked("edge-1", HttpsTarget::Kubelet),
            Ok(port_of("edge-1", 10250))
        );
        assert_eq!(
            asked("edge-2.example", HttpsTarget::Kubelet),
            Ok(port_of("edge-2", 10350))
        );
        assert_eq!(asked("edge-2", other), Ok(port_of("edge-2", 9100)));
        let unknown = Refusal::UnknownName("edge-3 ".into());
        assert_eq!(asked("edge-3\n", other), Err(unknown));
        let nameless = Asked {
            server_name: None,
            target: HttpsTarget::Kubelet,
            may_use_loopback_ports: true,
        };
        assert_eq!(
            nameless.destination(&snapshot()),
            Err(Refusal::NoServerName)
        );
    }

    #[test]
    fn a_nodes_loopback_is_for_those_who_may_use_it() {
        let target = HttpsTarget::Port(port(9443));
        assert_eq!(asked("edge-1", target), Err(Refusal::NotAllowed));
        let allowed = Asked {
            server_name: Some("edge-1"),
            target,
            may_use_loopback_ports: true,
        };
        assert_eq!(
            allowed.destination(&snapshot()),
            Ok(port_of("edge-1", 9443))
        );
    }
}
