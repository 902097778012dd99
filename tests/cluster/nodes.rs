//! Nodes come, go and change while Culvert runs.

use std::time::Duration;

use culvert_tests::cluster::wait_until;
use culvert_tests::{scale, until};

use crate::dials::{NOT_CAPTURED, failure, get, is_not_captured};
use crate::objects::{EDGE_LABEL, Ghost, events};
use crate::stage::{PATIENCE, culvert, metric, server_log};

/// How long a change may take to reach the kernel's table, as the manual says.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Waits until the kernel's table has so many addresses, at most as long as a change may take.
fn wait_for_entries(wanted: u64) {
    until("the table follows", AT_ONCE, || {
        Ok((metric("culvert_server_redirect_entries") == wanted).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_node_is_captured_as_long_as_it_is_labelled_and_by_the_address_that_it_has() {
    let cluster = culvert();
    let entries = metric("culvert_server_redirect_entries");
    let ghost = Ghost::new(cluster, "ghost", "10.78.0.77");
    assert!(is_not_captured(cluster, "10.78.0.77:10250"));
    ghost.label(EDGE_LABEL);
    wait_for_entries(entries + 1);
    assert!(!is_not_captured(cluster, "10.78.0.77:10250"));
    ghost.move_to("10.78.0.78");
    until("the address has changed", AT_ONCE, || {
        let moved = is_not_captured(cluster, "10.78.0.77:10250")
            && !is_not_captured(cluster, "10.78.0.78:10250");
        Ok(moved.then_some(()))
    })
    .unwrap();
    ghost.label("openyurt.io/is-edge-worker-");
    wait_for_entries(entries);
    assert!(is_not_captured(cluster, "10.78.0.78:10250"));
    ghost.label("openyurt.io/edge-enable-reverseTunnel-client=true");
    wait_for_entries(entries + 1);
    drop(ghost);
    wait_for_entries(entries);
}

#[test]
fn a_node_without_agent_fails_at_once_and_log_and_event_say_why() {
    let cluster = culvert();
    let ghost = Ghost::new(cluster, "agentless", "10.78.0.79");
    ghost.label(EDGE_LABEL);
    // A server that has just started waits a little for agents that are on their way.
    let cause = until("it is captured and fails at once", PATIENCE, || {
        let (cause, took) = failure(cluster, "10.78.0.79:10250");
        Ok((cause != NOT_CAPTURED && took < scale::patience(AT_ONCE)).then_some(cause))
    })
    .unwrap();
    assert!(cause.contains("ECONNRESET"), "{cause}");
    wait_until("the log tells", PATIENCE, || {
        let log = server_log(cluster)?;
        Ok(log.lines().any(tells_of_agentless).then_some(()))
    })
    .unwrap();
    wait_until("an Event tells", PATIENCE, || {
        let told = events(cluster, "Node", "agentless", "NoTunnelAgent")?;
        Ok((!told.is_empty()).then_some(()))
    })
    .unwrap();
}

fn tells_of_agentless(line: &str) -> bool {
    let parts = [
        "connection refused to the client",
        "node=agentless",
        "target_address=10.78.0.79:10250",
        "cause=no agent of node agentless is connected",
    ];
    parts.iter().all(|part| line.contains(part))
}

#[test]
fn a_node_that_claims_anothers_address_takes_nothing_and_an_event_tells_it() {
    let cluster = culvert();
    let url = "http://10.78.0.12:10255/healthz";
    get(cluster, url).unwrap();
    let entries = metric("culvert_server_redirect_entries");
    let twin = Ghost::new(cluster, "twin", "10.78.0.12");
    twin.label(EDGE_LABEL);
    wait_until("an Event tells", PATIENCE, || {
        let told = events(cluster, "Node", "twin", SHARED)?;
        Ok(told
            .iter()
            .any(|note| note.contains("edge-2"))
            .then_some(()))
    })
    .unwrap();
    get(cluster, url).unwrap();
    assert_eq!(metric("culvert_server_redirect_entries"), entries);
    assert!(
        events(cluster, "Node", "edge-2", SHARED)
            .unwrap()
            .is_empty()
    );
    // Outside of the networks that the operator named.
    twin.move_to("10.79.0.1");
    wait_until("an Event tells", PATIENCE, || {
        let told = events(cluster, "Node", "twin", "InvalidNodeAddress")?;
        let named = told.iter().any(|note| note.contains("--node-networks"));
        Ok(named.then_some(()))
    })
    .unwrap();
    assert!(is_not_captured(cluster, "10.79.0.1:10250"));
    assert_eq!(metric("culvert_server_redirect_entries"), entries);
}

const SHARED: &str = "SharedNodeAddress";
