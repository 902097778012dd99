//! The server goes, in order or not, and comes back; or it hangs.

use std::io::{ErrorKind, Read as _, Write as _};

use culvert_tests::report::{Connects, parse};
use culvert_tests::{Daemon, scale};
use rustix::process::Signal;

use crate::resets::ending;
use crate::stage::{NODE, OTHER, PATIENCE, Stage, end_of};

/// Many short connections without an end; [`finish`] ends them.
pub(crate) fn flood(stage: &Stage) -> Daemon {
    let threads = scale::count(8, 4, 2);
    let line = format!("flood --to {NODE} --threads {threads} --pause-ms 1 --seconds 300");
    let mut flood = stage.probe(stage.control(), &line).start().unwrap();
    flood.wait_for_line("flooding", PATIENCE).unwrap();
    flood
}

pub(crate) fn finish(mut flood: Daemon) -> Connects {
    flood.signal(Signal::TERM).unwrap();
    parse(&flood.succeed(PATIENCE).unwrap()).unwrap()
}

/// What clients may get at the moment when a server goes, or before agents have come.
const BETWEEN: [&str; 9] = [
    "connect ENETUNREACH",
    "connect ECONNREFUSED",
    "connect ECONNRESET",
    "connect ETIMEDOUT",
    "getpeername ECONNRESET",
    "echo ECONNRESET",
    "echo EPIPE",
    "echo EOF",
    "echo EAGAIN",
];

#[test]
fn a_server_that_is_stopped_and_started_under_load_works_again() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let (mut server, _agent) = stage.culvert("", "");
    let flood = flood(&stage);
    assert!(server.stop(PATIENCE).unwrap().success());
    assert_eq!(stage.fails(NODE), "connect ENETUNREACH", "policy bypass");

    let _server = stage.server("");
    stage.until_connected(0, true);
    stage.works(NODE);
    only_expected(&finish(flood));
}

#[test]
fn a_server_that_is_killed_and_started_under_load_works_again() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let flags = "--gate-policy refuse";
    let (mut server, _agent) = stage.culvert(flags, "");
    let flood = flood(&stage);
    server.kill().unwrap();
    assert_eq!(stage.fails(NODE), "connect ECONNREFUSED", "policy refuse");

    let _server = stage.server(flags);
    stage.until_connected(0, true);
    stage.works(NODE);
    only_expected(&finish(flood));
}

fn only_expected(report: &Connects) {
    let strange = |cause: &&String| !BETWEEN.contains(&cause.as_str());
    let strange: Vec<_> = report.failed.keys().filter(strange).collect();
    assert!(report.succeeded > 0 && strange.is_empty(), "{report:?}");
}

#[test]
fn a_client_that_comes_before_its_agent_has_returned_is_carried() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let (mut server, mut agent) = stage.culvert("", "--dial-timeout 20s");
    agent.stop(PATIENCE).unwrap();
    server.stop(PATIENCE).unwrap();
    let _server = stage.server("--dial-timeout 20s");
    let line = format!("flood --to {NODE} --count 1 --seconds 60 --timeout-ms 20000");
    let mut client = stage.probe(stage.control(), &line).start().unwrap();
    stage.until("the client waits", |_| {
        stage.metric("connections_open{frontend=\"transparent\"}") == 1
    });
    let _agent = stage.agent_again(0, "");
    let report: Connects = parse(&client.succeed(PATIENCE).unwrap()).unwrap();
    assert_eq!((report.succeeded, report.failures()), (1, 0), "{report:?}");
}

#[test]
fn a_hung_server_is_bypassed_and_captures_again_when_it_goes_on() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let target = stage.listen(OTHER);
    let (mut server, _agent) = stage.culvert("", "");
    let (mut client, mut accepted) = stage.pair(&target);
    server.signal(Signal::STOP).unwrap();
    // Until the heartbeat is too old, connects queue up at the listener.
    stage.eventually_fails(NODE, "connect ENETUNREACH");
    server.signal(Signal::CONT).unwrap();
    stage.eventually_works(NODE);
    // It hung for less than the keepalive allows: what was open still is.
    client.write_all(b"still").unwrap();
    accepted.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn a_node_that_wants_it_refuses_while_the_server_hangs() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let mut server = stage.server("");
    let join = stage.token(0, "--gate-policy refuse");
    let _agent = stage.up(0, &join);
    stage.works(NODE);
    server.signal(Signal::STOP).unwrap();
    stage.eventually_fails(NODE, "connect ECONNREFUSED");
    server.signal(Signal::CONT).unwrap();
    stage.eventually_works(NODE);
}

#[test]
fn a_killed_server_leaves_nobody_with_what_looks_like_the_whole() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, _agent) = stage.culvert("", "");
    let (mut client, mut accepted) = stage.pair(&target);
    accepted.write_all(b"half of it").unwrap();
    client.read_exact(&mut [0; 10]).unwrap();
    server.kill().unwrap();
    for end in [&client, &accepted] {
        assert_eq!(ending(end), Err(ErrorKind::ConnectionReset));
    }
}

#[test]
fn nothing_is_left_in_the_kernel_after_an_uninstall() {
    let stage = Stage::new();
    let mut server = stage.server("--gate-policy refuse");
    let mut agent = stage.agent(0, "");
    agent.stop(PATIENCE).unwrap();
    server.stop(PATIENCE).unwrap();
    assert_eq!(
        stage.fails(NODE),
        "connect ECONNREFUSED",
        "the programs stay"
    );
    end_of(&stage.site.server().arg("--uninstall")).unwrap();
    // The kernel lets a link go a moment after its last pin.
    stage.eventually_fails(NODE, "connect ENETUNREACH");
    assert!(!stage.site.pins().exists());
}
