//! From a real Yurt-Tunnel to Culvert as the manual tells, node by node, under open `exec`s and a Prometheus. It takes a
//! cluster of its own, and a name that comes before those of the shared one: there is room for one at a time.

mod clients;
mod migration;

use std::collections::BTreeMap;

use crate::pods;
use clients::{Clients, TICKS};
use migration::Migration;

const NOTHING: BTreeMap<String, u64> = BTreeMap::new();

#[test]
fn nodes_move_from_a_yurt_tunnel_that_serves_to_culvert_in_its_place() {
    let migration = Migration::begin();
    for (pod, node) in [("on-1", "edge-1"), ("on-2", "edge-2")] {
        pods::running(migration.cluster(), pod, node, TICKS);
    }
    migration.logs_work();
    let mut clients = Clients::begin(migration.cluster());
    nodes_move(&migration, &mut clients);
    their_server_goes_and_then_their_agents(&migration, &mut clients);
    culvert_takes_its_place(&migration, &mut clients);
}

/// Nobody notices.
fn nodes_move(migration: &Migration, clients: &mut Clients<'_>) {
    migration.run("1. Culvert beside it", 0);
    migration.until_culvert_serves();
    migration.logs_work();
    assert!(migration.sessions().is_empty());
    let said = migration.move_one("edge-1", "on-1");
    assert!(said.contains("edge-1  connected"), "{said}");
    assert!(said.contains("tick 1\n"), "{said}");
    migration.logs_work();
    clients.dials.none_has_failed();
    assert_eq!(clients.scraper.missed(), NOTHING);
    migration.move_back("edge-1");
    migration.logs_work();
    // Prometheus may have dialled meanwhile, and Culvert carried that.
    at_most(1, &clients.scraper.missed());
    clients.dials_anew();
    migration.move_all();
    migration.logs_work();
    migration.culvert_carries_what_is_new();
    // It is Yurt-Tunnel's still.
    clients.exec.goes_on();
    clients.dials.none_has_failed();
    assert_eq!(clients.scraper.missed(), NOTHING);
}

/// Those notice who were carried by it still, and dial anew.
fn their_server_goes_and_then_their_agents(migration: &Migration, clients: &mut Clients<'_>) {
    let old = clients.exec_anew();
    migration.crash_their_server();
    assert!(migration.rules() > 0);
    let said = migration.run("3. Yurt-Tunnel's server goes", 1);
    assert!(said.contains("nf_tables, IPv4: removed "), "{said}");
    assert_eq!(migration.rules(), 0);
    migration.logs_work();
    old.ends();
    at_most(1, &clients.scraper.missed());

    migration.run("4. Its agents go", 0);
    migration.their_agents_are_gone();
    migration.logs_work();
    clients.exec.goes_on();
    clients.dials.none_has_failed();
    assert_eq!(clients.scraper.missed(), NOTHING);
}

/// What a node's agent carries has its time to end while the agent is replaced.
fn culvert_takes_its_place(migration: &Migration, clients: &mut Clients<'_>) {
    let cluster = migration.cluster();
    let old = clients.exec_anew();
    migration.run("5. Culvert in its place", 0);
    cluster.wait_for_culvert().unwrap();
    old.ends();
    // The server was replaced, and the node's agent.
    at_most(2, &clients.scraper.missed());
    clients.dials_anew();
    migration.logs_work();
    clients.exec_anew();

    migration.run("5. Culvert in its place", 1);
    cluster.wait_for_culvert().unwrap();
    assert_eq!(
        migration.sessions(),
        ["edge-1", "edge-2"].map(Into::into).into()
    );
    // At its usual port.
    cluster.culvert_metrics().unwrap();
    migration.logs_work();
    clients.exec.goes_on();
    assert_eq!(clients.scraper.missed(), NOTHING);
    clients.dials.none_has_failed();
    assert_eq!(migration.rules(), 0);
}

/// No target was missed more often than that, and the control plane's own never.
fn at_most(scrapes: u64, missed: &BTreeMap<String, u64>) {
    eprintln!("missed: {missed:?}");
    let fine =
        |(target, missed): (&String, &u64)| target.contains(" of edge-") && *missed <= scrapes;
    assert!(missed.iter().all(fine), "{missed:?}");
}
