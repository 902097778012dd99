//! The agent of a node dies: its clients hear of it at once, and the node stays known.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::stage::{NODE, PATIENCE, Stage};

/// "At once", on a machine that does much else.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn clients_of_a_killed_agent_are_reset_at_once_and_the_log_says_why() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, mut agent) = stage.culvert("--log-level info,tunnel_user::frontend=debug", "");
    let (mut client, mut accepted) = stage.pair(&target);
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
    for part in ["node=edge-1", NODE, "duration=", "Session"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }

    stage.until_connected(0, false);
    let milliseconds = stage.is_reset(NODE);
    assert!(milliseconds < 1000.0, "{milliseconds} ms");
    let line = server
        .wait_for_line("connection refused to the client", PATIENCE)
        .unwrap();
    for part in [
        "node=edge-1",
        NODE,
        "no agent of node edge-1 is connected",
        "duration=",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(stage.status().nodes.len(), 1, "the node stays listed");
    assert_eq!(stage.metric("dial_failures_total{cause=\"no_session\"}"), 1);

    let _agent = stage.agent_again(0, "");
    stage.pair(&target);
}

#[test]
fn connects_to_a_node_without_agent_get_what_was_asked_for() {
    for (policy, outcome) in [
        ("bypass", "connect ENETUNREACH"),
        ("refuse", "connect ECONNREFUSED"),
    ] {
        let stage = Stage::new();
        let _target = stage.target(&format!("--bind {NODE}"));
        let (_server, mut agent) = stage.culvert(&format!("--offline-nodes {policy}"), "");
        stage.eventually_works(NODE);
        agent.kill().unwrap();
        stage.eventually_fails(NODE, outcome);
        let _agent = stage.agent_again(0, "");
        stage.eventually_works(NODE);
    }
}
