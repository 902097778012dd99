//! The ConfigMap of tunnelled ports, edited while Culvert runs.

use std::time::Duration;

use culvert_tests::cluster::wait_until;
use culvert_tests::until;

use crate::dials::{echo, failure, get, is_not_captured};
use crate::objects::{Ports, events};
use crate::stage::{PATIENCE, culvert};

const MAP: &str = "yurt-tunnel-server-cfg";
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn ports_are_tunnelled_as_soon_as_they_are_listed_and_no_longer() {
    let cluster = culvert();
    let _echo = echo(cluster, "10.78.0.11:9100");
    let ports = Ports::new(cluster, &[]);
    assert!(is_not_captured(cluster, "10.78.0.11:9100"));
    ports.set(&[
        ("http-proxy-ports", "9100"),
        ("https-proxy-ports", "9445, 9446"),
    ]);
    until("both keys have their effect", AT_ONCE, || {
        let captured = ["10.78.0.11:9100", "10.78.0.11:9446"];
        Ok((!captured.iter().any(|to| is_not_captured(cluster, to))).then_some(()))
    })
    .unwrap();
    ports.set(&[("dnat-ports-pair", "9100=10264")]);
    until("the other port is let go", AT_ONCE, || {
        Ok(is_not_captured(cluster, "10.78.0.11:9446").then_some(()))
    })
    .unwrap();
    assert!(!is_not_captured(cluster, "10.78.0.11:9100"));
}

#[test]
fn a_localhost_port_leads_to_the_nodes_loopback() {
    let cluster = culvert();
    // An agent's meta endpoints are on the loopback of its node only.
    let _ports = Ports::new(cluster, &[("localhost-proxy-ports", "10266")]);
    until("the agent answers", AT_ONCE, || {
        let metrics = get(cluster, "http://10.78.0.11:10266/metrics")?;
        Ok(metrics.contains("culvert_agent_sessions 1").then_some(()))
    })
    .unwrap();
}

#[test]
fn bad_values_are_told_and_good_ones_apply_and_a_deletion_ends_nothing() {
    let cluster = culvert();
    let _echo = echo(cluster, "10.78.0.11:9100");
    let ports = Ports::new(cluster, &[("http-proxy-ports", "9100, nonsense, 70000")]);
    until("the good one applies", PATIENCE, || {
        Ok((!is_not_captured(cluster, "10.78.0.11:9100")).then_some(()))
    })
    .unwrap();
    for bad in ["nonsense", "70000"] {
        wait_until("an Event names the bad value", PATIENCE, || {
            let told = events(cluster, "ConfigMap", MAP, "InvalidPorts")?;
            Ok(told.iter().any(|note| note.contains(bad)).then_some(()))
        })
        .unwrap();
    }
    ports.delete();
    wait_until("an Event tells of the deletion", PATIENCE, || {
        let told = events(cluster, "ConfigMap", MAP, "PortsConfigGone")?;
        Ok((!told.is_empty()).then_some(()))
    })
    .unwrap();
    let (cause, _) = failure(cluster, "10.78.0.11:9100");
    assert_ne!(cause, crate::dials::NOT_CAPTURED);
}
