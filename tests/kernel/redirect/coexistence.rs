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

/// A sidecar takes the pod's connects after us and dials the server itself: where they were meant
/// to go is lost, so the server closes them and says so. It never guesses.
#[test]
fn a_sidecars_own_connects_are_closed_and_counted() {
    let mut lab = RedirectLab::new();
    lab.lab.add_pod().unwrap();
    let pod = lab.lab.pod(0).namespace();
    pod.nft(
        "table ip sidecar {
             chain output {
                 type nat hook output priority -100
                 meta mark != 1 ip daddr 10.77.0.1 tcp dport 20250 redirect to :15001
             }
         }\n",
    )
    .unwrap();
    let mut server = lab.server("");
    let mut sidecar = lab
        .probe(pod, "echo --bind 127.0.0.1:15001 --seconds 60")
        .start()
        .unwrap();
    sidecar.wait_for_line("listening", PATIENCE).unwrap();
    // The client was redirected, and landed at the sidecar.
    let client = lab.probe(pod, &format!("connect --to {NODE_V4} --echo"));
    client.start().unwrap().succeed(PATIENCE).unwrap();
    // The sidecar dials where it sees the client going.
    let own = lab.probe(
        pod,
        &format!("connect --to {SERVER_V4} --mark 1 --greeting"),
    );
    let said = own.start().unwrap().succeed(PATIENCE).unwrap();
    assert!(said.contains("greeting EOF"), "{said}");
    let report = stop(&mut server);
    assert_eq!((report.known, report.unknown), (0, 1));
    assert_eq!(report.counters["no_original"], 1);
}
