//! What is captured must arrive: where a firewall of the control plane keeps it from the listener,
//! the server notices, says so, and captures no more of it.

use std::time::{Duration, Instant};

use culvert_tests::Daemon;
use tunnel_user::observability::status::StatusReport;

use crate::restarts::{finish, flood};
use crate::stage::{NODE, NODE_V6, PATIENCE, Stage, end_of};

/// How soon it is noticed that nothing arrives, and that all does again.
const SOON: Duration = Duration::from_secs(10);

/// Without ranges all connects arrive at one port of the machine's address, which a firewall can name.
const NOTED: &str = "--host-range none --pod-ranges none";

/// What a firewall does with packets to the listener: both families, or one.
fn firewall(stage: &Stage, rule: &str) {
    let script = format!(
        "table inet firewall {{ chain input {{ type filter hook input priority 0; {rule}; }}\n}}\n"
    );
    stage.control().nft(&script).unwrap();
}

fn no_firewall(stage: &Stage) {
    stage.control().nft("delete table inet firewall").unwrap();
}

/// Why nothing arrives, as the server's condition says; `None` if it does.
fn reason(status: &StatusReport) -> Option<String> {
    let mut conditions = status.conditions.iter();
    let arrival = conditions.find(|condition| condition.name == "arrival");
    arrival.unwrap().reason.clone()
}

/// Waits until it is noticed, and returns why.
fn noticed(stage: &Stage) -> String {
    let began = Instant::now();
    stage.until("it is noticed", |status| reason(status).is_some());
    let took = began.elapsed();
    assert!(took < SOON, "{took:?}");
    reason(&stage.status()).unwrap()
}

fn recovers(stage: &Stage) {
    let began = Instant::now();
    stage.until("all arrives again", |status| {
        status.conditions.iter().all(|condition| condition.ready)
    });
    let took = began.elapsed();
    assert!(took < SOON, "{took:?}");
}

fn count(server: &Daemon, text: &str) -> usize {
    server.output().matches(text).count()
}

#[test]
fn connects_that_a_firewall_drops_are_noticed_and_no_longer_captured_until_it_lets_them_in() {
    let stage = Stage::new();
    let _targets = [NODE, NODE_V6].map(|node| stage.target(&format!("--bind {node}")));
    let (server, _agent) = stage.culvert(NOTED, "");
    assert_eq!(reason(&stage.status()), None);
    firewall(&stage, "tcp dport 10270 drop");
    noticed(&stage);
    for (node, family, listener) in [
        (NODE, "IPv4", "10.77.0.1:10270"),
        (NODE_V6, "IPv6", "[fd00:77::1]:10270"),
    ] {
        stage.eventually_fails(node, "connect ENETUNREACH");
        let reason = reason(&stage.status()).unwrap();
        for part in [family, listener, "a firewall", "accept tcp dport 10270"] {
            assert!(reason.contains(part), "{part} is not in {reason}");
        }
    }
    let text = stage.site.status_text().unwrap();
    assert!(text.contains("[-] arrival: connects to nodes'"), "{text}");
    assert!(stage.metric("arrival_probe_failures_total") >= 4);

    no_firewall(&stage);
    recovers(&stage);
    for node in [NODE, NODE_V6] {
        stage.works(node);
    }
    for told in [
        "captured connects do not arrive",
        "captured connects arrive again",
    ] {
        assert_eq!(
            count(&server, told),
            2,
            "once for each family: {}",
            server.output()
        );
    }
}

/// By ranges they arrive at loopback addresses, on the ports that were dialled.
#[test]
fn so_are_those_to_the_addresses_that_stand_for_nodes() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let (_server, _agent) = stage.culvert("", "");
    stage.works(NODE);
    firewall(&stage, "iifname lo tcp dport { 10250, 10255 } drop");
    let reason = noticed(&stage);
    assert!(reason.contains("what comes by lo"), "{reason}");
    stage.eventually_fails(NODE, "connect ENETUNREACH");
    no_firewall(&stage);
    recovers(&stage);
    stage.works(NODE);
}

#[test]
fn a_family_that_arrives_is_served_while_another_does_not_and_nodes_have_their_policy() {
    let stage = Stage::new();
    let _targets = [NODE, NODE_V6].map(|node| stage.target(&format!("--bind {node}")));
    let (_server, _agent) = stage.culvert(&format!("--gate-policy refuse {NOTED}"), "");
    let flood = flood(&stage);
    firewall(&stage, "meta nfproto ipv6 tcp dport 10270 drop");
    let reason = noticed(&stage);
    assert!(
        reason.contains("IPv6") && !reason.contains("IPv4"),
        "{reason}"
    );
    stage.eventually_fails(NODE_V6, "connect ECONNREFUSED");
    stage.works(NODE);
    no_firewall(&stage);
    recovers(&stage);
    stage.works(NODE_V6);
    let report = finish(flood);
    assert!(report.succeeded > 0 && report.failures() == 0, "{report:?}");
}

#[test]
fn a_server_that_starts_behind_a_firewall_says_so_and_so_does_its_successor() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    firewall(&stage, "tcp dport 10270 drop");
    // Without a node there is nothing to capture.
    let mut server = stage.server(NOTED);
    let _agent = stage.agent(0, "");
    noticed(&stage);
    let mut successor = stage.site.server().words(NOTED).start().unwrap();
    assert!(server.wait(PATIENCE).unwrap().success());
    successor
        .wait_for_line("captured connects do not arrive", PATIENCE)
        .unwrap();
    stage.eventually_fails(NODE, "connect ENETUNREACH");
    no_firewall(&stage);
    recovers(&stage);
    stage.eventually_works(NODE);
}

#[test]
fn a_server_outside_the_cgroup_that_is_captured_is_told_so() {
    let stage = Stage::new();
    let mut server = stage.site.server().without_cgroup().start().unwrap();
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    let _agent = stage.agent(0, "");
    let line = server
        .wait_for_line("captured connects do not arrive", PATIENCE)
        .unwrap();
    for part in ["not redirected", "--cgroup"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn upgrades_and_stops_are_no_reason_to_doubt() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, _agent) = stage.culvert("", "");
    // The first server drains as long as this is open, while its successor answers the probes.
    let open = stage.pair(&target);
    let mut next = stage.server("");
    let probes = || stage.metric("arrival_probes_total");
    let enough = probes() + 6;
    stage.until("some probes were sent", |_| probes() >= enough);
    drop(open);
    assert!(server.wait(PATIENCE).unwrap().success());
    assert!(next.stop(PATIENCE).unwrap().success());
    for server in [&server, &next] {
        assert_eq!(count(server, "do not arrive"), 0, "{}", server.output());
    }
    end_of(&stage.site.server().arg("--uninstall")).unwrap();
}
