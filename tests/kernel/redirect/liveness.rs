//! What clients get when the server is gone, hangs, comes back or is replaced.

use std::time::Instant;

use culvert_tests::{
    Daemon,
    report::{Connects, parse},
};
use rustix::process::Signal;

use super::lab::{EDGE, NODE_V4, PATIENCE, RedirectLab, stop};

fn flood(lab: &RedirectLab) -> Daemon {
    flood_to(lab, NODE_V4)
}

/// Connects on and on.
pub(super) fn flood_to(lab: &RedirectLab, to: &str) -> Daemon {
    let line = format!("flood --to {to} --no-echo --threads 4 --seconds 60");
    let mut flood = lab.probe(lab.control(), &line).start().unwrap();
    flood.wait_for_line("flooding", PATIENCE).unwrap();
    flood
}

/// What became of them.
pub(super) fn stop_flood(mut flood: Daemon) -> Connects {
    flood.signal(Signal::TERM).unwrap();
    parse(&flood.succeed(PATIENCE).unwrap()).unwrap()
}

#[test]
fn a_killed_server_captures_nothing_from_that_moment_on() {
    let lab = RedirectLab::new();
    let mut server = lab.server("");
    let flood = flood(&lab);
    server.kill().unwrap();
    // Maps and links stay, yet the connect passes: there is no route.
    assert_eq!(lab.fails(&format!("--to {NODE_V4}")), "connect ENETUNREACH");
    let report = stop_flood(flood);
    let hung = report
        .failed
        .keys()
        .filter(|cause| !EXPECTED.contains(&cause.as_str()));
    assert_eq!(hung.collect::<Vec<_>>(), [""; 0], "{report:?}");
    assert!(report.slowest_ms < SYN_SENT_AGAIN_MS, "{report:?}");
    // The next server finds everything in place.
    let _server = lab.server("");
    lab.reaches(&format!("--to {NODE_V4}"));
}

/// What a connect under way may get at the moment of the kill.
const EXPECTED: [&str; 4] = [
    "connect ENETUNREACH",
    "connect ECONNREFUSED",
    "connect ECONNRESET",
    "getpeername ECONNRESET",
];

/// What a connect under way may take at that moment: its SYN is sent again after a second, and then answered with a
/// reset. A SYN that finds a listener which is being closed is dropped without an answer, whoever's listener it is
/// ([`tcp_rcv_state_process`, `TCP_CLOSE`](https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/tcp_input.c)).
const SYN_SENT_AGAIN_MS: f64 = 2000.0;

#[test]
fn a_stopped_server_is_noticed_by_its_heartbeat() {
    let lab = RedirectLab::new();
    let mut server = lab.server("--max-age-ms 2000");
    lab.reaches(&format!("--to {NODE_V4}"));
    server.signal(Signal::STOP).unwrap();
    // Until then connects queue up at the listener.
    let connect = || lab.connects(&format!("--to {NODE_V4} --timeout-ms 1000"));
    let deadline = Instant::now() + PATIENCE;
    while !connect().failed.contains_key("connect ENETUNREACH") {
        assert!(Instant::now() < deadline, "still captured");
    }
    server.signal(Signal::CONT).unwrap();
    while connect().succeeded == 0 {
        assert!(Instant::now() < deadline, "not captured again");
    }
}

#[test]
fn a_node_that_wants_it_refuses_at_once() {
    let lab = RedirectLab::new();
    let mut server = lab.server("--policy refuse");
    lab.reaches(&format!("--to {NODE_V4}"));
    server.kill().unwrap();
    assert_eq!(
        lab.fails(&format!("--to {NODE_V4}")),
        "connect ECONNREFUSED"
    );
    // Only exact targets.
    assert_eq!(lab.fails("--to 10.78.0.12:10250"), "connect ENETUNREACH");
}

/// What a server said of a node's sessions says nothing once it is gone, in order or not.
#[test]
fn without_a_server_the_policy_decides_whatever_the_nodes_mode() {
    for (node_mode, before, policy, after) in [
        (
            "refuse",
            "connect ECONNREFUSED",
            "bypass",
            "connect ENETUNREACH",
        ),
        (
            "bypass",
            "connect ENETUNREACH",
            "refuse",
            "connect ECONNREFUSED",
        ),
    ] {
        let lab = RedirectLab::new();
        let line = format!("--other 10.78.0.12 --node-mode {node_mode} --policy {policy}");
        for killed in [false, true] {
            let mut server = lab.server(&line);
            assert_eq!(lab.fails("--to 10.78.0.12:10250"), before);
            if killed {
                server.kill().unwrap();
            } else {
                stop(&mut server);
            }
            let outcome = lab.fails("--to 10.78.0.12:10250");
            assert_eq!(outcome, after, "standing {node_mode}, killed: {killed}");
        }
    }
}

/// Each server has a port of its own: on a shared one, the kernel would go on giving connections to
/// the old server's listener, and reset those that it has not accepted when it closes.
#[test]
fn servers_take_over_from_each_other_under_load_without_one_failure() {
    let lab = RedirectLab::new();
    let mut server = lab.server("");
    let flood = flood(&lab);
    for port in ["20251", "20252", "20253", "20250", "20251"] {
        let next = lab.bare_server(&EDGE.replace("20250", port));
        let report = stop(&mut server);
        assert_eq!(report.unknown, 0);
        assert!(server.output().contains("gate closed: false"));
        server = next;
    }
    let report = stop_flood(flood);
    assert!(report.succeeded > 0 && report.failures() == 0, "{report:?}");
    let report = stop(&mut server);
    assert_eq!((report.unknown, report.pending), (0, 0));
    assert!(server.output().contains("gate closed: true"));
}
