//! A graceful stop lets open connections finish, within limits.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::resets::ending;
use crate::stage::{NODE, PATIENCE, Stage, at_once};

/// A connection that has carried something both ways: its ends know of one another.
fn open(stage: &Stage, target: &TcpListener) -> (TcpStream, TcpStream) {
    let (mut client, mut target) = stage.pair(target);
    client.write_all(b"a").unwrap();
    target.read_exact(&mut [0; 1]).unwrap();
    target.write_all(b"b").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    (client, target)
}

fn finishes((mut client, mut target): (TcpStream, TcpStream)) {
    client.write_all(b"the rest").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    target.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "the rest");
    target.write_all(b"thanks").unwrap();
    drop(target);
    heard.clear();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "thanks");
}

fn is_reset((client, target): (TcpStream, TcpStream)) {
    for end in [&client, &target] {
        assert_eq!(ending(end), Err(ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_server_that_is_told_to_stop_lets_open_connections_finish() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, _agent) = stage.culvert("", "");
    let open = open(&stage, &target);
    server.signal(Signal::TERM).unwrap();
    server.wait_for_line("stopping", PATIENCE).unwrap();
    stage.eventually_fails(NODE, "connect ENETUNREACH");
    finishes(open);
    let finished = Instant::now();
    assert!(server.wait(PATIENCE).unwrap().success());
    assert!(
        finished.elapsed() < at_once() * 9,
        "well before the deadline"
    );
}

#[test]
fn a_second_signal_ends_a_server_at_once() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, _agent) = stage.culvert("", "");
    let open = open(&stage, &target);
    server.signal(Signal::TERM).unwrap();
    server.wait_for_line("stopping", PATIENCE).unwrap();
    let told = Instant::now();
    server.signal(Signal::TERM).unwrap();
    is_reset(open);
    assert!(told.elapsed() < at_once(), "{:?}", told.elapsed());
    // Or it says that it could not end in order.
    server.wait(PATIENCE).unwrap();
    assert!(told.elapsed() < at_once() * 2);
}

#[test]
fn connections_that_outlive_the_drain_are_reset() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, _agent) = stage.culvert("--drain-timeout 1s", "");
    let open = open(&stage, &target);
    let told = Instant::now();
    server.signal(Signal::TERM).unwrap();
    is_reset(open);
    let drained = told.elapsed();
    assert!(drained >= Duration::from_secs(1), "{drained:?}");
    server
        .wait_for_line("outlived the drain", PATIENCE)
        .unwrap();
    assert!(server.wait(PATIENCE).unwrap().success());
}

#[test]
fn an_agent_that_is_told_to_stop_lets_open_connections_finish() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, mut agent) = stage.culvert("", "");
    let open = open(&stage, &target);
    agent.signal(Signal::TERM).unwrap();
    agent.wait_for_line("stopping", PATIENCE).unwrap();
    finishes(open);
    assert!(agent.wait(PATIENCE).unwrap().success());
    stage.until_connected(0, false);
}

#[test]
fn connections_that_outlive_the_agents_drain_are_reset() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, mut agent) = stage.culvert("", "--drain-timeout 1s");
    let open = open(&stage, &target);
    agent.signal(Signal::TERM).unwrap();
    is_reset(open);
    assert!(agent.wait(PATIENCE).unwrap().success());
}
