//! A second server with the same directories takes over from the first: nobody notices.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::restarts::{finish, flood};
use crate::stage::{NODE, OTHER, PATIENCE, Stage};

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
