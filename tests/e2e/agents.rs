//! The agent of a node dies: its clients hear of it at once, and the node stays known.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Instant;

use culvert_tests::report::{Connects, parse};
use culvert_tests::{Cgroup, Daemon, Launch, PinRoot, programs};

use crate::resets::ending;
use crate::stage::{NODE, PATIENCE, Stage, at_once};

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
    assert_eq!(ending(&client), Err(ErrorKind::ConnectionReset));
    assert!(killed.elapsed() < at_once(), "{:?}", killed.elapsed());
    assert_eq!(ending(&accepted), Err(ErrorKind::ConnectionReset));
    let line = server.wait_for_line("connection ended", PATIENCE).unwrap();
    for part in ["node=edge-1", NODE, "duration=", "Session"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }

    stage.until_connected(0, false);
    let took = stage.is_reset(NODE);
    assert!(took < at_once(), "{took:?}");
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

/// Two control-plane nodes of one cluster, as far as the agent can tell: each has its own port,
/// its own kernel programs and its own clients.
#[test]
fn an_agent_keeps_a_session_to_every_server() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let mut first = stage.server("");
    let elsewhere = Elsewhere::new(&stage);
    let mut second = elsewhere.server(&stage);
    let join = stage.token(0, "");
    let mut agent = stage.up(0, &format!("{join} --server 10.77.0.1:10362"));
    second
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    stage.works(NODE);
    elsewhere.works(&stage);
    assert_eq!(stage.agent_status(0).sessions.len(), 2);

    first.kill().unwrap();
    elsewhere.works(&stage);
    let gone = stage.fails(NODE);
    assert_eq!(gone, "connect ENETUNREACH");
    agent.forget_output();
    let _first = stage.server("");
    stage.until_connected(0, true);
    stage.works(NODE);
    elsewhere.works(&stage);
    assert!(
        !agent.output().contains("server=10.77.0.1:10362"),
        "the other session did not notice: {}",
        agent.output()
    );
}

/// Where the second server captures.
struct Elsewhere {
    pins: PinRoot,
    cgroup: Cgroup,
}

impl Elsewhere {
    fn new(stage: &Stage) -> Self {
        stage.lab().check().unwrap();
        Self {
            pins: PinRoot::new().unwrap(),
            cgroup: Cgroup::new("elsewhere").unwrap(),
        }
    }

    /// It shares the CA and the registrations; in one machine its ports have to be others.
    fn server(&self, stage: &Stage) -> Daemon {
        let server = Launch::new(stage.control(), programs::culvert().unwrap())
            .cgroup(&self.cgroup)
            .words("server --agent-port 10362 --redirect-port 10370 --meta-port 10365")
            .words("--redirect-address 10.77.0.1")
            .arg("--state-dir")
            .arg(stage.site.server_state())
            .arg("--run-dir")
            .arg(stage.path("elsewhere"))
            .arg("--cgroup")
            .arg(self.cgroup.path())
            .arg("--pin-root")
            .arg(self.pins.path());
        let mut server = server.start().unwrap();
        server.wait_for_line("redirecting", PATIENCE).unwrap();
        server
    }

    #[track_caller]
    fn works(&self, stage: &Stage) {
        let client = Launch::new(stage.control(), programs::probe().unwrap())
            .cgroup(&self.cgroup)
            .words(&format!("connect --to {NODE} --echo"));
        let said = client.start().unwrap().succeed(PATIENCE).unwrap();
        let report: Connects = parse(&said).unwrap();
        assert_eq!(report.failures(), 0, "{report:?}");
    }
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
