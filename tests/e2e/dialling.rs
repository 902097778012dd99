//! Dials that fail: by policy, by time, by the limit, by the agent's death. Each says why.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use culvert_tests::report::Connects;

use crate::resets::ending;
use crate::stage::{NODE, OTHER, PATIENCE, Stage, at_once};

/// The time that is given in the tests of it.
const ONE: Duration = Duration::from_secs(1);

/// Drops what is sent to a port of the edge node, as a firewall does.
pub(crate) fn swallow(stage: &Stage, port: u16) {
    let rule = format!(
        "table inet swallow {{ chain input {{ type filter hook input priority 0; \
         tcp dport {port} drop; }}\n}}\n"
    );
    stage.edge().nft(&rule).unwrap();
}

#[test]
fn an_agent_dials_what_its_policy_allows_and_nothing_else() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let _other = stage.target(&format!("--bind {OTHER}"));
    let allowed = format!("--no-default-targets --allow {}/32:10255", "10.78.0.11");
    let (mut server, mut agent) = stage.culvert("", &allowed);
    stage.works(OTHER);
    stage.is_reset(NODE);
    let line = server
        .wait_for_line("connection refused to the client", PATIENCE)
        .unwrap();
    for part in ["node=edge-1", NODE, "not allowed by the agent's policy"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let line = agent.wait_for_line("cannot dial", PATIENCE).unwrap();
    for part in [NODE, "not allowed by the agent's policy (see --allow)"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(
        stage.agent_metric(0, "dial_failures_total{cause=\"denied\"}"),
        1
    );

    agent.stop(PATIENCE).unwrap();
    let _agent = stage.agent_again(0, &format!("{allowed} --allow 10.78.0.0/24:10250"));
    stage.works(NODE);
}

/// A server that tunnels a port which nobody has told the agent of may have been taken over.
#[test]
fn an_agent_opens_no_port_of_its_node_because_a_server_asks() {
    let stage = Stage::new();
    let unlisted = "10.78.0.11:9100";
    let _target = stage.target(&format!("--bind {unlisted}"));
    let (mut server, mut agent) = stage.culvert("--ports 9100", "");
    stage.is_reset(unlisted);
    for said in [
        server.wait_for_line("connection refused to the client", PATIENCE),
        agent.wait_for_line("cannot dial", PATIENCE),
    ] {
        let said = said.unwrap();
        for part in [
            unlisted,
            "not allowed by the agent's policy",
            "start the agent with --allow-ports 9100",
        ] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
    assert_eq!(
        stage.agent_metric(0, "dial_failures_total{cause=\"denied\"}"),
        1
    );

    agent.stop(PATIENCE).unwrap();
    let _agent = stage.agent_again(0, "--allow-ports 9100");
    stage.works(unlisted);
}

#[test]
fn a_target_that_never_answers_fails_when_the_time_is_over() {
    let stage = Stage::new();
    let (mut server, mut agent) = stage.culvert("--dial-timeout 3s", "--dial-timeout 1s");
    swallow(&stage, 10250);
    let took = stage.is_reset(NODE);
    assert!(took >= ONE && took < ONE + at_once(), "{took:?}");
    let line = server
        .wait_for_line("connection refused to the client", PATIENCE)
        .unwrap();
    for part in ["node=edge-1", NODE, "i/o timeout", "duration="] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    agent.wait_for_line("i/o timeout", PATIENCE).unwrap();
    assert_eq!(
        stage.agent_metric(0, "dial_failures_total{cause=\"timed_out\"}"),
        1
    );
}

#[test]
fn a_server_that_is_less_patient_than_its_agent_gives_up_by_itself() {
    let stage = Stage::new();
    let (mut server, _agent) = stage.culvert("--dial-timeout 1s", "--dial-timeout 30s");
    swallow(&stage, 10250);
    let took = stage.is_reset(NODE);
    assert!(took >= ONE && took < ONE + at_once(), "{took:?}");
    server
        .wait_for_line("no answer from the agent within", PATIENCE)
        .unwrap();
    assert_eq!(stage.metric("dial_failures_total{cause=\"timed_out\"}"), 1);
    stage.until("the dial is forgotten", |status| {
        status.sessions[0].open_connections == 0
    });
}

#[test]
fn a_pending_dial_fails_at_once_when_its_agent_dies() {
    let stage = Stage::new();
    let (mut server, mut agent) = stage.culvert("--dial-timeout 60s", "--dial-timeout 60s");
    swallow(&stage, 10250);
    let client = stage.connect(NODE);
    stage.until("the dial is pending", |status| {
        status.sessions[0].open_connections == 1
    });
    let killed = Instant::now();
    agent.kill().unwrap();
    assert_eq!(ending(&client), Err(ErrorKind::ConnectionReset));
    assert!(killed.elapsed() < at_once());
    server
        .wait_for_line("ended during the dial", PATIENCE)
        .unwrap();
    assert_eq!(
        stage.metric("dial_failures_total{cause=\"session_lost\"}"),
        1
    );
}

#[test]
fn connections_beyond_the_limit_are_refused_and_those_within_go_on() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, _agent) = stage.culvert("--max-connections-per-session 2", "");
    let mut first = stage.pair(&target);
    let second = stage.pair(&target);
    stage.is_reset(NODE);
    let line = server
        .wait_for_line("connection refused to the client", PATIENCE)
        .unwrap();
    for part in ["node=edge-1", "carries 2 connections, its limit"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(
        stage.metric("dial_failures_total{cause=\"session_full\"}"),
        1
    );
    first.0.write_all(b"still").unwrap();
    first.1.read_exact(&mut [0; 5]).unwrap();
    drop(second);
    stage.until("there is room again", |status| {
        status.sessions[0].open_connections == 1
    });
    stage.pair(&target);
}

#[test]
fn a_node_that_is_away_costs_the_log_a_few_lines_however_often_it_is_dialled() {
    let stage = Stage::new();
    let (mut server, mut agent) = stage.culvert("", "");
    agent.kill().unwrap();
    stage.until_connected(0, false);
    server.forget_output();
    let report: Connects = stage.report(&format!("flood --to {NODE} --count 1000 --seconds 60"));
    assert_eq!(report.failed.values().sum::<u64>(), 1000, "{report:?}");
    server
        .wait_for_line("too many lines of this kind", PATIENCE)
        .unwrap();
    let lines = server.output().lines().count();
    assert!((2..20).contains(&lines), "{lines}: {}", server.output());
}
