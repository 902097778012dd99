//! What the redirect needs, and what it says without it.

use super::lab::{EDGE, NODE_V4, PATIENCE, RedirectLab};

#[test]
fn two_capabilities_are_enough() {
    let lab = RedirectLab::new();
    let mut server = lab
        .confined_acceptor("+bpf,+net_admin", EDGE)
        .start()
        .unwrap();
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    lab.reaches(&format!("--to {NODE_V4}"));
    // And for the next one, which updates the links.
    server.kill().unwrap();
    let mut server = lab
        .confined_acceptor("+bpf,+net_admin", EDGE)
        .start()
        .unwrap();
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    lab.reaches(&format!("--to {NODE_V4}"));
}

#[test]
fn logging_needs_a_third_and_says_so() {
    let lab = RedirectLab::new();
    let line = format!("{EDGE} --log-level debug");
    let mut refused = lab
        .confined_acceptor("+bpf,+net_admin", &line)
        .start()
        .unwrap();
    refused.wait_for_line("CAP_PERFMON", PATIENCE).unwrap();
    let mut server = lab
        .confined_acceptor("+bpf,+net_admin,+perfmon", &line)
        .start()
        .unwrap();
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    lab.reaches(&format!("--to {NODE_V4}"));
    server
        .wait_for_line("verdict=\"redirect\"", PATIENCE)
        .unwrap();
}

#[test]
fn each_missing_capability_is_named() {
    let lab = RedirectLab::new();
    for (given, missing) in [
        ("+bpf", "CAP_NET_ADMIN"),
        ("+net_admin", "CAP_BPF"),
        ("+net_raw", "CAP_BPF and CAP_NET_ADMIN"),
    ] {
        let mut refused = lab.confined_acceptor(given, EDGE).start().unwrap();
        let said = refused.wait_for_line("the redirect needs", PATIENCE);
        let said = said.unwrap();
        assert!(said.contains(&format!("needs {missing}:")), "{said}");
    }
}
