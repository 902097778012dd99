//! A table that is made out of the one before is the one that would be made from nothing.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::model::{AddressHolder, Node, PortSet, TunnelPort};

const CHANGES: usize = 400;

fn name(number: u8) -> NodeName {
    format!("e{number}").parse().unwrap()
}

fn address(number: u8) -> IpAddr {
    format!("10.0.0.{number}").parse().unwrap()
}

fn ports(numbers: impl IntoIterator<Item = u16>) -> PortSet {
    numbers.into_iter().filter_map(TunnelPort::new).collect()
}

/// Any of few nodes gets other addresses, another port or another policy, or goes.
fn change(snapshot: &mut Snapshot, random: &mut StdRng) {
    let number = random.random_range(0..8);
    let before = snapshot
        .node(&name(number))
        .map(|node| node.addresses.clone());
    let mut concerned = before.unwrap_or_default();
    if random.random_bool(0.2) {
        snapshot.remove_node(&name(number));
    } else {
        let addresses: Vec<_> = (0..random.random_range(0..3))
            .map(|_| address(random.random_range(0..12)))
            .collect();
        concerned.extend(&addresses);
        let port = random
            .random_bool(0.2)
            .then(|| random.random_range(12000..12003));
        snapshot.set_node(Node {
            name: name(number),
            addresses,
            extra_ports: ports(port),
            closed_gate: random.random_bool(0.3).then_some(GatePolicy::Refuse),
            admits: None,
        });
    }
    for address in concerned {
        let claimants: Vec<_> = snapshot
            .nodes()
            .values()
            .filter(|node| node.addresses.contains(&address))
            .map(|node| node.name.clone())
            .collect();
        let holder = match &*claimants {
            [] => AddressHolder::Outside,
            [only] => AddressHolder::Node(only.clone()),
            _ => AddressHolder::Contested(claimants),
        };
        snapshot.set_holder(address, holder);
    }
}

#[test]
fn each_table_of_many_is_the_one_from_nothing() {
    let mut random = StdRng::seed_from_u64(7);
    let mut builder = TableBuilder::new(GatePolicy::Bypass);
    let mut snapshot = Snapshot::new(Vec::<Node>::new(), ports([10250]));
    let mut own = Arc::new(BTreeSet::new());
    let mut modes = NodeMode::Capture;
    for step in 0..CHANGES {
        for _ in 0..random.random_range(0..3) {
            change(&mut snapshot, &mut random);
        }
        match random.random_range(0..20) {
            0 => own = Arc::new([address(random.random_range(0..12))].into()),
            1 => snapshot = snapshot.with_ports(ports([10250, random.random_range(12000..12003)])),
            2 => {
                modes = NodeMode::Refuse;
                builder.forget();
            }
            _ => {}
        }
        let made = builder.build(&Arc::new(snapshot.clone()), &own, |_| modes);
        let (expected, excluded) = Table::new(&snapshot, &own, GatePolicy::Bypass, |_| modes);
        assert_eq!(made, expected, "after {step} steps");
        let left_out: Vec<_> = builder.excluded().cloned().collect();
        assert_eq!(left_out, excluded, "after {step} steps");
    }
}
