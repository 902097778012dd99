//! Other programs on the same hook, and other redirections in a pod.

use std::{path::Path, process::Command};

use culvert_tests::Cgroup;

use super::lab::{EDGE, NODE_V4, PATIENCE, RedirectLab, SERVER_V4, stop};

/// Somebody else's connect4 program: ours, loaded by bpftool with maps of its own, all empty, so
/// that it lets every connect pass.
fn load_other(lab: &RedirectLab) -> String {
    format!("{}/connect4", lab.load_with_bpftool("other").display())
}

fn attach(cgroup: &Path, program: &str, flags: &[&str]) {
    let attached = Command::new("bpftool")
        .args(["cgroup", "attach", cgroup.to_str().unwrap(), "connect4"])
        .args(["pinned", program])
        .args(flags)
        .output()
        .unwrap();
    assert!(attached.status.success(), "{attached:?}");
}

#[test]
fn other_programs_before_and_after_ours_do_not_disturb_it() {
    let lab = RedirectLab::new();
    let other = load_other(&lab);
    attach(lab.cgroup.path(), &other, &["multi"]);
    let mut server = lab.server("");
    lab.reaches(&format!("--to {NODE_V4}"));
    stop(&mut server);

    let lab = RedirectLab::new();
    let other = load_other(&lab);
    let mut server = lab.server("");
    attach(lab.cgroup.path(), &other, &["multi"]);
    lab.reaches(&format!("--to {NODE_V4}"));
    stop(&mut server);
}

#[test]
fn a_program_that_holds_the_hook_exclusively_is_named() {
    let lab = RedirectLab::new();
    let other = load_other(&lab);
    attach(lab.cgroup.path(), &other, &[]);
    let mut refused = lab.acceptor(EDGE).start().unwrap();
    let said = refused.wait_for_line("exclusively", PATIENCE).unwrap();
    assert!(
        said.contains("(connect4)") && said.contains("bpftool cgroup detach"),
        "{said}"
    );

    // On a cgroup above ours.
    let above = Cgroup::new("above").unwrap();
    attach(above.path(), &other, &[]);
    let below = RedirectLab::with_cgroup(above.child("below").unwrap());
    let mut refused = below.acceptor(EDGE).start().unwrap();
    let said = refused.wait_for_line("exclusively", PATIENCE).unwrap();
    assert!(said.contains(above.path().to_str().unwrap()), "{said}");
}

/// A sidecar takes the pod's connects after us and dials, itself, where it sees the client going. The
/// address there still stands for the node.
#[test]
fn a_sidecars_own_connects_reach_the_node_that_its_client_dialled() {
    let mut lab = RedirectLab::new();
    lab.lab.add_pod().unwrap();
    let mut server = lab.server("");
    let pod = lab.lab.pod(0).namespace();
    let line = format!("connect --to {NODE_V4} --greeting");
    let direct = lab.probe(pod, &line).start().unwrap().succeed(PATIENCE);
    assert!(direct.unwrap().contains(NODE_V4));
    pod.nft(
        "table ip sidecar {
             chain output {
                 type nat hook output priority -100
                 meta mark != 1 ip daddr 198.18.0.0/15 tcp dport 10250 redirect to :15001
             }
         }\n",
    )
    .unwrap();
    let mut sidecar = lab
        .probe(pod, "echo --bind 127.0.0.1:15001 --seconds 60")
        .start()
        .unwrap();
    sidecar.wait_for_line("listening", PATIENCE).unwrap();
    // The client was redirected, and landed at the sidecar.
    let client = lab.probe(pod, &format!("connect --to {NODE_V4} --echo"));
    client.start().unwrap().succeed(PATIENCE).unwrap();
    // What the sidecar sees is the node's address in the range: the first slot.
    let own = lab.probe(pod, "connect --to 198.18.0.1:10250 --mark 1 --greeting");
    let said = own.start().unwrap().succeed(PATIENCE).unwrap();
    assert!(said.contains(NODE_V4), "{said}");
    assert_eq!(stop(&mut server).known, 2);
}

/// Without a range the sidecar dials the server itself: where its client wanted to go is lost, so the
/// connect is refused and counted. Nobody guesses.
#[test]
fn a_sidecars_own_connects_are_refused_and_counted_where_no_range_serves() {
    let mut lab = RedirectLab::new();
    lab.lab.add_pod().unwrap();
    let pod = lab.lab.pod(0).namespace();
    let mut server = lab.server("--tuple");
    let own = lab.probe(
        pod,
        &format!("connect --to {SERVER_V4} --mark 1 --greeting"),
    );
    let said = own.start().unwrap().succeed(PATIENCE).unwrap();
    assert!(said.contains("connect ECONNREFUSED"), "{said}");
    let report = stop(&mut server);
    assert_eq!((report.known, report.unknown), (0, 0));
    assert_eq!(report.counters["steer_unannounced"], 1);
}
