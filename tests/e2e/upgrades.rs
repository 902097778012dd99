//! A second server with the same directories takes over from the first: nobody notices.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use culvert_tests::{Daemon, command, programs, scale, until};
use rustix::process::Signal;

use crate::restarts::{finish, flood};
use crate::stage::{NODE, OTHER, PATIENCE, Stage, end_of};

fn exchange((client, target): &mut (TcpStream, TcpStream)) {
    client.write_all(b"up").unwrap();
    target.read_exact(&mut [0; 2]).unwrap();
    target.write_all(b"down").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn servers_take_over_from_each_other_without_one_failure_and_open_connections_go_on() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let target = stage.listen(OTHER);
    let (mut server, agent) = stage.culvert("", "");
    let flood = flood(&stage);
    let mut agent = agent;
    for _ in 0..2 {
        let mut open = stage.pair(&target);
        exchange(&mut open);
        agent.forget_output();
        let next = stage.server("");
        // The old server has the connection, and nothing else any more.
        exchange(&mut open);
        assert!(server.is_running(), "{}", server.output());
        let new = stage.pair(&target);
        exchange(&mut open);
        drop(open);
        let ended = server.wait(PATIENCE).unwrap();
        assert!(ended.success(), "{}", server.output());
        agent
            .wait_for_line("session established", PATIENCE)
            .unwrap();
        drop(new);
        server = next;
    }
    let report = finish(flood);
    assert!(report.succeeded > 0 && report.failures() == 0, "{report:?}");
    // The last one still does what a server does.
    assert!(server.stop(PATIENCE).unwrap().success());
    assert_eq!(stage.fails(NODE), "connect ENETUNREACH");
}

/// Its status is another's: that it redirects is in its log.
fn version_before(stage: &Stage) -> Daemon {
    let mut server = stage.site.previous_server().unwrap().start().unwrap();
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    server
}

#[test]
fn the_version_before_is_taken_over_from_without_one_failure_and_addresses_serve_afterwards() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let mut before = version_before(&stage);
    let join = stage.token(0, "");
    let mut agent = stage.site.agent(0, &join).start().unwrap();
    let in_session = |agent: &mut Daemon| agent.wait_for_line("session established", PATIENCE);
    in_session(&mut agent).unwrap();
    let flood = flood(&stage);
    agent.forget_output();

    let _server = stage.server("");
    in_session(&mut agent).unwrap();
    let ended = before.wait(PATIENCE).unwrap();
    assert!(ended.success(), "{}", before.output());
    let steered = || stage.metric("redirect_events_total{event=\"steered\"}");
    let some = scale::count(10_000, 2000, 100);
    until("addresses stand for the node", PATIENCE, || {
        Ok((steered() > some).then_some(()))
    })
    .unwrap();
    let report = finish(flood);
    assert!(report.succeeded > some, "{report:?}");
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn after_the_version_before_has_stopped_addresses_serve_at_once() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let mut before = version_before(&stage);
    assert!(before.stop(PATIENCE).unwrap().success());
    let (_server, _agent) = stage.culvert("", "");
    stage.works(NODE);
    assert!(stage.metric("redirect_events_total{event=\"steered\"}") > 0);
}

#[test]
fn a_successor_that_dies_before_it_is_ready_leaves_the_first_server_in_charge() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let (mut server, _agent) = stage.culvert("", "");
    let flood = flood(&stage);
    let mut successor = stage.site.server().start().unwrap();
    successor.wait_for_line("taking over", PATIENCE).unwrap();
    successor.kill().unwrap();
    server
        .wait_for_line("a successor gave up", PATIENCE)
        .unwrap();
    stage.works(NODE);
    assert_eq!(stage.status().pid, server.pid());
    let report = finish(flood);
    assert_eq!(report.failures(), 0, "{report:?}");
    // And a later one succeeds.
    let _next = stage.server("");
    assert!(server.wait(PATIENCE).unwrap().success());
    stage.works(NODE);
}

#[test]
fn a_server_that_drains_after_it_handed_over_holds_none_of_its_ports() {
    let stage = Stage::new();
    let target = stage.listen(OTHER);
    let (mut old, _agent) = stage.culvert("", "");
    let mut open = stage.pair(&target);
    let mut successor = stage.server("");
    // One of the two would say that it stops, were the port still shared.
    for _ in 0..20 {
        let mut curl = stage.control().command("curl");
        command::output_of(curl.args(["-sSf", "http://127.0.0.1:10265/readyz"]), "").unwrap();
    }
    successor.kill().unwrap();
    assert_eq!(stage.fails(NODE), "connect ENETUNREACH");
    let _third = stage.server("");
    assert!(old.is_running(), "{}", old.output());
    exchange(&mut open);
}

#[test]
fn a_server_that_starts_while_a_stopped_one_drains_takes_over_from_it() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let target = stage.listen(OTHER);
    let (mut stopped, _agent) = stage.culvert("", "");
    let mut open = stage.pair(&target);
    stopped.signal(Signal::TERM).unwrap();
    until("the gate is closed", PATIENCE, || {
        Ok((stage.fails(NODE) == "connect ENETUNREACH").then_some(()))
    })
    .unwrap();
    exchange(&mut open);

    let mut next = stage.server("");
    stage.works(NODE);
    exchange(&mut open);
    assert!(stopped.is_running(), "{}", stopped.output());
    drop(open);
    assert!(stopped.wait(PATIENCE).unwrap().success());
    // It has taken nothing away from the other.
    stage.works(NODE);
    let curl = "-sSf http://127.0.0.1:10265/readyz".split(' ');
    command::output_of(stage.control().command("curl").args(curl), "").unwrap();
    assert!(next.stop(PATIENCE).unwrap().success());
}

#[test]
fn a_server_that_is_told_to_stop_before_it_took_over_leaves_the_first_one_in_charge() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let (server, mut agent) = stage.culvert("", "");
    // Its agent cannot come along, so the successor waits for it.
    agent.signal(Signal::STOP).unwrap();
    let mut successor = stage.site.server().start().unwrap();
    successor
        .wait_for_line("redirect installed", PATIENCE)
        .unwrap();
    assert!(successor.stop(PATIENCE).unwrap().success());
    agent.signal(Signal::CONT).unwrap();
    assert_eq!(stage.status().pid, server.pid());
    stage.until_connected(0, true);
    stage.works(NODE);
}

#[test]
fn a_server_that_knows_nothing_of_the_first_one_neither_takes_nor_removes_its_redirect() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let (mut server, _agent) = stage.culvert("", "");
    let in_use = format!("process {} uses the redirect", server.pid());
    let culvert = |flags: &str| {
        stage
            .site
            .client(stage.control(), programs::culvert().unwrap())
            .words(flags)
            .arg("--pin-root")
            .arg(stage.site.pins())
    };
    let ports = "server --agent-port 11262 --meta-port 11265 --redirect-port 11270";
    let other = culvert(ports)
        .arg("--state-dir")
        .arg(stage.path("other-state"))
        .arg("--run-dir")
        .arg(stage.path("other-run"))
        .arg("--cgroup")
        .arg(stage.site.captured().path());
    let uninstall = culvert("server --uninstall");
    for refused in [&other, &uninstall] {
        let error = end_of(refused).unwrap_err();
        assert!(error.contains(&in_use), "{error}");
    }
    stage.works(NODE);
    assert!(server.stop(PATIENCE).unwrap().success());
    let removed = end_of(&uninstall).unwrap();
    assert!(removed.contains("removed 8 programs"), "{removed}");
}

#[test]
fn an_upgrade_may_change_ports() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let _more = stage.target("--bind 10.78.0.11:9100");
    let (mut server, _agent) = stage.culvert("", "--allow-ports 9100");
    let flood = flood(&stage);
    assert_eq!(stage.fails("10.78.0.11:9100"), "connect ENETUNREACH");
    let _next = stage.server("--ports 9100 --redirect-port 10280 --meta-port 10285");
    assert!(server.wait(PATIENCE).unwrap().success());
    stage.works("10.78.0.11:9100");
    let report = finish(flood);
    assert_eq!(report.failures(), 0, "{report:?}");
}

/// The nodes have their sessions with one server, then with the other; they are never offline.
#[test]
fn nodes_are_not_taken_for_offline_in_an_upgrade() {
    for policy in ["bypass", "refuse"] {
        let stage = Stage::new();
        let _target = stage.target(&format!("--bind {NODE}"));
        let flags = format!("--offline-nodes {policy}");
        let (mut server, mut agent) = stage.culvert(&flags, "");
        stage.eventually_works(NODE);
        let flood = flood(&stage);
        let _next = stage.server(&flags);
        assert!(server.wait(PATIENCE).unwrap().success());
        let report = finish(flood);
        assert_eq!(report.failures(), 0, "{policy}: {report:?}");
        // The successor does see who is offline.
        agent.kill().unwrap();
        stage.eventually_fails(
            NODE,
            if policy == "bypass" {
                "connect ENETUNREACH"
            } else {
                "connect ECONNREFUSED"
            },
        );
    }
}

#[test]
fn an_upgrade_does_not_wait_for_ever_for_a_node_that_is_lost() {
    let stage = Stage::with_edges(2);
    let _target = stage.target(&format!("--bind {NODE}"));
    let (mut server, _agent) = stage.culvert("", "");
    let _lost = stage.agent(1, "");
    let flood = flood(&stage);
    // The server has not noticed yet when its successor asks.
    stage.lab().black_hole(1).unwrap();
    let mut next = stage.server("");
    next.wait_for_line("without the sessions of some nodes", PATIENCE)
        .unwrap();
    assert!(server.wait(PATIENCE).unwrap().success());
    stage.lab().restore(1).unwrap();
    stage.until_connected(1, true);
    let report = finish(flood);
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn a_server_that_hangs_is_not_replaced_behind_its_back() {
    let stage = Stage::new();
    let mut server = stage.server("");
    server.signal(Signal::STOP).unwrap();
    let refused = end_of(&stage.site.server()).unwrap_err();
    let run = stage.site.server_run();
    for part in [run.to_str().unwrap(), "does not hand over: stop it first"] {
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
    server.signal(Signal::CONT).unwrap();
    stage.until("the server goes on", |status| status.pid == server.pid());
}
