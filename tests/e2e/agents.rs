//! The agent of a node dies: its clients hear of it at once, and the node stays known.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::site::{NODE, PATIENCE, Site};

/// "At once", on a machine that does much else.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn clients_of_a_killed_agent_are_reset_at_once_and_the_log_says_why() {
    let site = Site::new();
    let target = site.listen(NODE);
    let (mut server, mut agent) = site.culvert("--log-level info,tunnel_user::frontend=debug", "");
    let (mut client, mut accepted) = site.pair(&target);
    client.write_all(b"ping").unwrap();
    accepted.read_exact(&mut [0; 4]).unwrap();

    let killed = Instant::now();
    agent.kill().unwrap();
    let end = client.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    let end = accepted.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset), "the target as well");
    let line = server.wait_for_line("connection ended", PATIENCE).unwrap();
    for part in ["node=edge-0", NODE, "duration=", "Session"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }

    site.until_connected(0, false);
    let (end, milliseconds) = site.try_once(NODE);
    assert!(milliseconds < 1000.0, "{milliseconds} ms");
    // The server accepts before it knows; the reset comes while the client sends or reads.
    let end = end.expect("nobody can carry it");
    assert!(RESET.contains(&end.as_str()), "{end}");
    let line = server
        .wait_for_line("connection refused to the client", PATIENCE)
        .unwrap();
    for part in [
        "node=edge-0",
        NODE,
        "no agent of node edge-0 is connected",
        "duration=",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(site.status().nodes.len(), 1, "the node stays listed");
    assert_eq!(site.metric("dial_failures_total{cause=\"no_session\"}"), 1);

    let _agent = site.agent_again(0, "");
    site.pair(&target);
}

/// What a client gets from a connection that is reset right after it came about.
const RESET: [&str; 4] = [
    "connect ECONNRESET",
    "getpeername ENOTCONN",
    "echo ECONNRESET",
    "echo EPIPE",
];

#[test]
fn connects_to_a_node_without_agent_get_what_was_asked_for() {
    for (policy, outcome) in [
        ("bypass", "connect ENETUNREACH"),
        ("refuse", "connect ECONNREFUSED"),
    ] {
        let site = Site::new();
        let _target = site.target(0, &format!("--bind {NODE}"));
        let (_server, mut agent) = site.culvert(&format!("--offline-nodes {policy}"), "");
        site.eventually_works(NODE);
        agent.kill().unwrap();
        site.eventually_fails(NODE, outcome);
        let _agent = site.agent_again(0, "");
        site.eventually_works(NODE);
    }
}
