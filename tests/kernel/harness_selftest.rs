//! The harness keeps its promises: sealed, isolated, nothing left behind.

use std::time::Duration;

use culvert_tests::lab::CONTROL;
use culvert_tests::report::{Connects, Hashes, Pings, parse};
use culvert_tests::{Cgroup, Daemon, Lab, Launch, NetNs, PinRoot, programs};

const PATIENCE: Duration = Duration::from_secs(10);

fn probe(namespace: &NetNs, line: &str) -> Launch {
    Launch::new(namespace, programs::probe().unwrap()).words(line)
}

fn server(namespace: &NetNs, line: &str) -> Daemon {
    let mut server = probe(namespace, &format!("echo --seconds 60 {line}"))
        .start()
        .unwrap();
    server.wait_for_line("listening", PATIENCE).unwrap();
    server
}

fn connects(namespace: &NetNs, line: &str) -> Connects {
    let mut client = probe(namespace, &format!("connect {line}"))
        .start()
        .unwrap();
    parse(&client.succeed(PATIENCE).unwrap()).unwrap()
}

#[test]
fn the_control_plane_cannot_reach_an_edge_which_can_reach_it() {
    let mut lab = Lab::nat_with(2).unwrap();
    lab.add_pod().unwrap();
    let (control, edge) = (lab.control(), lab.edge(1));
    let _v4 = server(control, "--bind 10.77.0.1:7000");
    let _v6 = server(control, "--bind [fd00:77::1]:7000");

    for to in ["10.77.0.1:7000", "[fd00:77::1]:7000"] {
        for client in [edge.namespace(), lab.pod(0).namespace()] {
            assert_eq!(
                connects(client, &format!("--to {to} --echo")).succeeded,
                1,
                "{to}"
            );
        }
    }
    for client in [control, lab.pod(0).namespace()] {
        for to in [
            format!("{}:10250", edge.ipv4()),
            format!("[{}]:10250", edge.ipv6()),
        ] {
            let report = connects(client, &format!("--to {to}"));
            assert_eq!(
                report.failed.keys().collect::<Vec<_>>(),
                ["connect ENETUNREACH"],
                "{to}"
            );
        }
    }
}

#[test]
fn a_lab_with_a_way_out_is_refused() {
    let lab = Lab::nat().unwrap();
    lab.check().unwrap();
    lab.control()
        .ip("route add default via 10.77.0.254")
        .unwrap();
    let refusal = lab.check().unwrap_err().to_string();
    assert!(refusal.contains("default route"), "{refusal}");
    lab.control().ip("route del default").unwrap();
    lab.check().unwrap();
}

#[test]
fn a_link_that_leads_out_of_the_lab_is_refused() {
    let (lab, other) = (Lab::nat().unwrap(), Lab::alone().unwrap());
    let stranger = other.control().name();
    lab.control()
        .ip(&format!(
            "link add leak type veth peer name leak netns {stranger}"
        ))
        .unwrap();
    let refusal = lab.check().unwrap_err().to_string();
    assert!(refusal.contains("the link leak leads out"), "{refusal}");
}

#[test]
fn a_black_hole_swallows_packets_until_it_is_closed() {
    let lab = Lab::nat().unwrap();
    let _server = server(lab.control(), "--bind 10.77.0.1:7000");
    let edge = lab.edge(0).namespace();
    let once = "--to 10.77.0.1:7000 --echo --timeout-ms 300";
    for cut in [Lab::black_hole, Lab::unplug] {
        cut(&lab, 0).unwrap();
        assert_eq!(connects(edge, once).succeeded, 0);
        lab.restore(0).unwrap();
        assert_eq!(connects(edge, &format!("{once}0")).succeeded, 1);
    }
}

#[test]
fn every_kind_of_client_connects() {
    let lab = Lab::alone().unwrap();
    let control = lab.control();
    // All listeners take data in the SYN, without a cookie (ip-sysctl: tcp_fastopen).
    control.sysctl("net.ipv4.tcp_fastopen", "1539").unwrap();
    let _v4 = server(control, "--bind 10.77.0.1:7000 --speak-first hello");
    let _v6 = server(control, "--bind [fd00:77::1]:7000");
    for kind in [
        "--nonblocking",
        "--fastopen",
        "--v4-mapped",
        "--bind 127.0.0.1",
        "--device lo",
        "--mark 7 --count 3 --threads 2",
        "--first 10.77.0.1:7000",
        "--hold-seconds 1",
    ] {
        let report = connects(
            control,
            &format!("--to 10.77.0.1:7000 --greeting --echo {kind}"),
        );
        assert_eq!(report.failures(), 0, "{kind}: {report:?}");
        assert!(
            report.peers.iter().all(|peer| peer.ip() == CONTROL[0]),
            "{kind}: {report:?}"
        );
        assert!(report.greetings.contains("hello"), "{kind}: {report:?}");
    }
    let six = connects(control, "--to [fd00:77::1]:7000 --v6-only --echo");
    assert_eq!(six.succeeded, 1, "{six:?}");
    let refused = connects(control, "--to 10.77.0.1:7001");
    assert_eq!(refused.failed.get("connect ECONNREFUSED"), Some(&1));
}

#[test]
fn transfers_floods_and_pings_report_what_they_did() {
    let lab = Lab::alone().unwrap();
    let control = lab.control();
    let _hash = server(control, "--bind 10.77.0.1:7000 --hash");
    let _echo = server(control, "--bind 10.77.0.1:7001");
    let run = |line: &str| {
        probe(control, line)
            .start()
            .unwrap()
            .succeed(PATIENCE)
            .unwrap()
    };

    let hashes = run("hash --to 10.77.0.1:7000 --connections 50 --max 100000 --seconds 10");
    let hashes: Hashes = parse(&hashes).unwrap();
    assert_eq!((hashes.intact, hashes.broken.len()), (50, 0), "{hashes:?}");
    let flood: Connects = parse(&run("flood --to 10.77.0.1:7001 --seconds 5 --count 100")).unwrap();
    assert_eq!((flood.succeeded, flood.failures()), (100, 0), "{flood:?}");
    let pings: Pings = parse(&run("ping --to 10.77.0.1:7001 --count 100")).unwrap();
    assert!(
        pings.count == 100 && pings.p50_us <= pings.max_us,
        "{pings:?}"
    );
    let stall = run("stall --to 10.77.0.1:7000 --bytes 20000000 --seconds 1 --resume");
    assert!(stall.contains("intact"), "{stall}");
}

#[test]
fn a_launched_program_is_in_its_namespace_and_cgroup_and_ends_with_its_guard() {
    let lab = Lab::alone().unwrap();
    let cgroup = Cgroup::new("launch").unwrap();
    let launch = probe(lab.control(), "echo --bind 127.0.0.1:7000 --seconds 60").cgroup(&cgroup);
    let mut daemon = launch.start().unwrap();
    daemon
        .wait_for_line("listening 127.0.0.1:7000", PATIENCE)
        .unwrap();
    assert_eq!(cgroup.pids(), [daemon.pid()]);
    let other = Lab::alone().unwrap();
    assert_eq!(
        connects(other.control(), "--to 127.0.0.1:7000").succeeded,
        0
    );
    assert_eq!(connects(lab.control(), "--to 127.0.0.1:7000").succeeded, 1);
    assert!(daemon.is_running());
    drop(daemon);
    assert_eq!(cgroup.pids(), [0; 0]);
}

#[test]
fn a_program_that_says_much_at_its_end_is_heard_out() {
    let mut seq = Launch::offline("seq").arg("1000000").start().unwrap();
    let answer = seq.succeed(PATIENCE).unwrap();
    assert_eq!(answer.lines().count(), 1_000_000);
    assert_eq!(answer.lines().last(), Some("1000000"));
}

#[test]
fn nothing_stays_behind_after_a_panic() {
    let (names, paths) = std::thread::spawn(|| {
        let lab = Lab::nat().unwrap();
        let cgroup = Cgroup::new("panic").unwrap();
        let pins = PinRoot::new().unwrap();
        let child = cgroup.child("below").unwrap();
        let daemon = probe(lab.control(), "echo --bind 127.0.0.1:7000 --seconds 60");
        // A daemon whose guard is lost, as after a panic in the middle of a list of them.
        std::mem::forget(daemon.cgroup(&child).start().unwrap());
        let names = [lab.control(), lab.router(), lab.edge(0).namespace()]
            .map(|namespace| namespace.path().to_owned());
        let paths = [cgroup.path(), child.path(), pins.path()].map(std::path::Path::to_owned);
        std::panic::resume_unwind(Box::new((names, paths)));
    })
    .join()
    .map(|(): ()| unreachable!("the thread panics"))
    .unwrap_err()
    .downcast::<([std::path::PathBuf; 3], [std::path::PathBuf; 3])>()
    .map(|left| *left)
    .unwrap();
    for path in names.iter().chain(&paths) {
        assert!(!path.exists(), "{} stayed behind", path.display());
    }
}
