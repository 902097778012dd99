//! Many nodes, and many connects while some stay open.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use culvert_tests::{
    report::{Connects, parse},
    scale,
};
use tunnel_user::{
    model::{GatePolicy, Node, PortSet, Snapshot, TunnelPort},
    redirect::{NodeMode, Options, Redirect, Table},
};

use super::lab::{NODE_V4, PATIENCE, RedirectLab};

fn table(nodes: u32) -> Table {
    let node = |i: u32| Node {
        name: format!("edge-{i}").parse().unwrap(),
        addresses: vec![IpAddr::from(Ipv4Addr::from_bits(0x0ac8_0000 + i))],
        extra_ports: PortSet::new(),
        closed_gate: None,
        admits: None,
    };
    let snapshot = Snapshot::new((0..nodes).map(node), [TunnelPort::KUBELET].into());
    let capture = |_: &_| NodeMode::Capture;
    Table::new(&snapshot, &BTreeSet::new(), GatePolicy::Bypass, capture).0
}

#[test]
fn a_hundred_thousand_nodes_are_written_in_one_go() {
    let lab = RedirectLab::new();
    let options = Options {
        cgroup: Some(lab.cgroup.path().to_owned()),
        pin_root: lab.pins.path().to_owned(),
        ..Options::default()
    };
    let mut redirect = Redirect::install(&options).unwrap();
    let all = table(100_000);
    let started = Instant::now();
    let changes = redirect.apply(&all).unwrap();
    eprintln!("100,000 nodes in {:?}", started.elapsed());
    assert_eq!(changes.nodes_added, 100_000);
    assert_eq!(redirect.state().unwrap().nodes, 100_000);
    let started = Instant::now();
    assert!(redirect.apply(&all).unwrap().is_empty());
    eprintln!("no change in {:?}", started.elapsed());
    assert_eq!(redirect.apply(&table(99_999)).unwrap().nodes_removed, 1);
    assert_eq!(redirect.apply(&table(0)).unwrap().nodes_removed, 99_999);
    let error = redirect.apply(&table(131_073)).unwrap_err().to_string();
    assert!(
        error.contains("131073 addresses are more than the 131072"),
        "{error}"
    );
    assert_eq!(redirect.state().unwrap().nodes, 0);
}

/// An LRU of sockets would have forgotten them.
#[test]
fn connections_that_stay_open_keep_their_peer_while_many_others_come_and_go() {
    let lab = RedirectLab::new();
    let _server = lab.server("--threads 4");
    // getpeername is called at the end of the hold.
    let line = format!("connect --to {NODE_V4} --threads 1 --count 32 --greeting --hold-seconds 8");
    let mut held = lab.probe(lab.control(), &line).start().unwrap();
    held.wait_for_line("holding 32", PATIENCE).unwrap();
    let count = scale::count(70_000, 8_000, 500);
    let line = format!(
        "flood --to {NODE_V4} --no-echo --threads 8 --count {} --seconds 60",
        count / 8
    );
    let mut others = lab.probe(lab.control(), &line).start().unwrap();
    let others: Connects = parse(&others.succeed(Duration::from_secs(70)).unwrap()).unwrap();
    assert_eq!(others.failures(), 0, "{others:?}");
    let held: Connects = parse(&held.succeed(PATIENCE).unwrap()).unwrap();
    assert_eq!((held.succeeded, held.failures()), (32, 0), "{held:?}");
    assert_eq!(held.peers, BTreeSet::from([NODE_V4.parse().unwrap()]));
    assert_eq!(held.greetings, BTreeSet::from([NODE_V4.to_owned()]));
}
