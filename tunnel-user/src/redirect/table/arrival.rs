//! What the table owes to the server's proof that captured connects arrive.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tunnel_ebpf::{Address, node_mode, policy};

use super::{Row, Table};
use crate::model::Family;

impl Table {
    /// Treats nodes' addresses of this family as while no server listens: what is captured of it
    /// does not arrive.
    pub fn set_aside(&mut self, family: Family) {
        let aside = |(octets, row): (&[u8; 16], &Row)| {
            // A node that is set aside for another reason stays as it is.
            let is_captured = family_of(octets) == family && row.node_mode == node_mode::CAPTURE;
            let node_mode = match row.closed_gate {
                policy::REFUSE => node_mode::REFUSE,
                _ => node_mode::BYPASS,
            };
            let row = row.clone();
            is_captured.then_some((*octets, Row { node_mode, ..row }))
        };
        let aside: Vec<_> = self.nodes.iter().filter_map(aside).collect();
        self.nodes.extend(aside);
    }

    /// Captures the targets of the server's own probes as well, one for each family of which a
    /// node's address is captured. Returns them.
    pub fn add_probes(&mut self) -> Vec<SocketAddr> {
        let every_node = self.ports.first().copied();
        let special = || self.special_ports().first().copied();
        let Some(port) = every_node.or_else(special) else {
            return Vec::new();
        };
        let extra_ports = if every_node.is_none() {
            vec![port]
        } else {
            Vec::new()
        };
        let families = Family::ALL.into_iter();
        let families: Vec<_> = families.filter(|family| self.has(*family)).collect();
        let targets = families.into_iter().map(Family::probe_target);
        let targets: Vec<_> = targets.map(|ip| SocketAddr::new(ip, port)).collect();
        for target in &targets {
            let row = Row {
                node_mode: node_mode::CAPTURE,
                closed_gate: policy::BYPASS,
                extra_ports: extra_ports.clone(),
            };
            self.set(target.ip(), Some(row));
        }
        targets
    }

    /// Whether any row is of this family; IPv4 addresses are v4-mapped, and together.
    fn has(&self, family: Family) -> bool {
        let octets = |v4| Address::from(IpAddr::V4(v4)).octets;
        let v4 = octets(Ipv4Addr::UNSPECIFIED)..=octets(Ipv4Addr::BROADCAST);
        match family {
            Family::V4 => self.nodes.range(v4).next().is_some(),
            Family::V6 => {
                let ends = [self.nodes.get_min(), self.nodes.get_max()];
                ends.into_iter()
                    .flatten()
                    .any(|(octets, _)| !v4.contains(octets))
            }
        }
    }

    /// How many of the rows are such targets, which no node can have.
    pub(super) fn probes(&self) -> usize {
        let octets = |family: &Family| Address::from(family.probe_target()).octets;
        let families = Family::ALL.iter();
        families
            .filter(|family| self.nodes.contains_key(&octets(family)))
            .count()
    }
}

fn family_of(octets: &[u8; 16]) -> Family {
    Family::of(Address { octets: *octets }.into())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use super::*;
    use crate::{
        model::{GatePolicy, Node, PortSet, Snapshot, TunnelPort},
        redirect::NodeMode,
    };

    fn table(ports: &[u16], extra: &[u16], nodes: &[(&str, GatePolicy, NodeMode)]) -> Table {
        let port = |number: &u16| TunnelPort::new(*number).unwrap();
        let named = (1..).zip(nodes);
        let nodes_of = named.clone().map(|(number, (address, policy, _))| Node {
            name: format!("edge-{number}").parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            extra_ports: extra.iter().map(port).collect(),
            closed_gate: Some(*policy),
            admits: None,
        });
        let ports: PortSet = ports.iter().map(port).collect();
        let snapshot = Snapshot::new(nodes_of, ports);
        let node_mode = |name: &crate::model::NodeName| {
            let of = |number: u32| name.as_str() == format!("edge-{number}");
            let mut named = named.clone();
            named.find(|(number, _)| of(*number)).unwrap().1.2
        };
        let own = BTreeSet::new();
        Table::new(&snapshot, &own, GatePolicy::Bypass, node_mode).0
    }

    fn mode_of(table: &Table, address: IpAddr) -> u32 {
        table.nodes[&Address::from(address).octets].node_mode
    }

    #[test]
    fn each_family_of_a_node_gets_a_probe_which_is_no_node() {
        let mut v4 = table(&[10255, 10250], &[], &[NODE]);
        assert_eq!(v4.add_probes(), ["233.252.0.77:10250".parse().unwrap()]);
        assert_eq!(v4.addresses(), 1);
        let v6 = ("fd00:78::11", GatePolicy::Bypass, NodeMode::Capture);
        let both = table(&[10250], &[], &[NODE, v6]).add_probes();
        assert_eq!(both.len(), 2);
        assert_eq!(table(&[10250], &[], &[]).add_probes(), []);
        assert_eq!(table(&[], &[], &[NODE]).add_probes(), []);
    }

    const NODE: (&str, GatePolicy, NodeMode) =
        ("10.78.0.11", GatePolicy::Bypass, NodeMode::Capture);

    #[test]
    fn without_a_port_of_every_node_the_probe_takes_one_of_some() {
        let mut table = table(&[], &[9100], &[NODE]);
        let target = Family::V4.probe_target();
        assert_eq!(table.add_probes(), [SocketAddr::new(target, 9100)]);
        let row = &table.nodes[&Address::from(target).octets];
        assert_eq!(row.extra_ports, [9100]);
        assert_eq!(table.special_ports(), [9100].into());
    }

    #[test]
    fn a_family_that_is_set_aside_gets_what_its_closed_gate_says_and_the_probe_goes_on() {
        let mut table = table(
            &[10250],
            &[],
            &[
                NODE,
                ("10.78.0.12", GatePolicy::Refuse, NodeMode::Capture),
                ("10.78.0.13", GatePolicy::Bypass, NodeMode::Refuse),
                ("fd00:78::11", GatePolicy::Refuse, NodeMode::Capture),
            ],
        );
        table.set_aside(Family::V4);
        table.add_probes();
        let of = |address: &str| mode_of(&table, address.parse().unwrap());
        assert_eq!(of("10.78.0.11"), node_mode::BYPASS);
        assert_eq!(of("10.78.0.12"), node_mode::REFUSE);
        assert_eq!(of("10.78.0.13"), node_mode::REFUSE, "for another reason");
        assert_eq!(of("fd00:78::11"), node_mode::CAPTURE);
        let probe = mode_of(&table, Family::V4.probe_target());
        assert_eq!(probe, node_mode::CAPTURE);
    }
}
