//! What is captured, what is not, and what each client sees.

use super::lab::{NODE_V4, NODE_V6, RedirectLab, SERVER_V4, SERVER_V6, stop};

#[test]
fn every_kind_of_client_reaches_the_node_that_it_dialled() {
    let lab = RedirectLab::new();
    let mut server = lab.server("");
    for (kind, to) in [
        ("", NODE_V4),
        ("--nonblocking", NODE_V4),
        ("--v4-mapped", NODE_V4),
        ("--bind 10.77.0.1", NODE_V4),
        ("", NODE_V6),
        ("--v6-only", NODE_V6),
        ("--nonblocking", NODE_V6),
    ] {
        let (peer, heard) = lab.reaches(&format!("--to {to} {kind}"));
        assert_eq!((peer.as_str(), heard.as_str()), (to, to), "{kind}");
    }
    let report = stop(&mut server);
    assert_eq!((report.known, report.unknown, report.pending), (7, 0, 0));
}

#[test]
fn what_is_not_listed_passes_untouched() {
    let lab = RedirectLab::new();
    let _server = lab.server("--mark 7");
    for line in [
        // Another port, another address, the mark.
        "--to 10.78.0.11:10251".to_owned(),
        "--to 10.78.0.12:10250".to_owned(),
        format!("--to {NODE_V4} --mark 7"),
        format!("--to {NODE_V6} --mark 7"),
    ] {
        assert_eq!(lab.fails(&line), "connect ENETUNREACH", "{line}");
    }
    lab.reaches(&format!("--to {NODE_V4} --mark 8"));
    // Bound to a device, the connect leaves through it, whatever the destination; nobody answers.
    let on_device = format!("--to {NODE_V4} --device lo --timeout-ms 200");
    assert_eq!(lab.fails(&on_device), "connect EINPROGRESS");
}

#[test]
fn a_client_that_dials_the_server_itself_is_not_taken_for_a_redirected_one() {
    let lab = RedirectLab::new();
    for scheme in ["", "--tuple"] {
        dial_the_server(&lab, scheme);
    }
}

fn dial_the_server(lab: &RedirectLab, scheme: &str) {
    let mut server = lab.server(scheme);
    for (to, node) in [(SERVER_V4, NODE_V4), (SERVER_V6, NODE_V6)] {
        assert_eq!(lab.fails(&format!("--to {to}")), "connect ECONNREFUSED");
        // The same socket was redirected before.
        assert_eq!(
            lab.fails(&format!("--to {to} --first {node}")),
            "connect ECONNREFUSED"
        );
    }
    let report = stop(&mut server);
    assert_eq!((report.known, report.unknown, report.pending), (2, 0, 0));
}

#[test]
fn a_socket_that_is_used_again_leads_to_the_last_node() {
    let lab = RedirectLab::new();
    let _server = lab.server("--other 10.78.0.12");
    let second = "10.78.0.12:10250";
    let (peer, heard) = lab.reaches(&format!("--to {second} --first {NODE_V4}"));
    assert_eq!((peer.as_str(), heard.as_str()), (second, second));
}

#[test]
fn a_port_of_one_node_is_captured_for_that_node_only() {
    let lab = RedirectLab::new();
    let _server = lab.server("--extra-port 12000 --other 10.78.0.12");
    let (_, heard) = lab.reaches("--to 10.78.0.11:12000");
    assert_eq!(heard, "10.78.0.11:12000");
    lab.reaches("--to 10.78.0.12:10250");
    assert_eq!(lab.fails("--to 10.78.0.12:12000"), "connect ENETUNREACH");
}

#[test]
fn a_nodes_mode_decides_while_the_server_lives() {
    for (node_mode, outcome) in [
        ("bypass", "connect ENETUNREACH"),
        ("refuse", "connect ECONNREFUSED"),
    ] {
        let lab = RedirectLab::new();
        let mut server = lab.server(&format!(
            "--other 10.78.0.12 --node-mode {node_mode} --mark 7"
        ));
        assert_eq!(lab.fails("--to 10.78.0.12:10250"), outcome);
        // Nobody refuses the server's own sockets.
        assert_eq!(
            lab.fails("--to 10.78.0.12:10250 --mark 7"),
            "connect ENETUNREACH"
        );
        lab.reaches(&format!("--to {NODE_V4}"));
        let counters = stop(&mut server).counters;
        assert_eq!(
            counters[&format!("standing_{node_mode}")],
            1,
            "{counters:?}"
        );
    }
}
