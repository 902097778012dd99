//! Whether the original destination is always there, and right, when a connection is accepted. The
//! server spins in accept and looks at once; the client compares what it dialled with what it hears.

use std::time::Duration;

use culvert_tests::{
    NetNs,
    report::{Race, parse},
    scale,
};

use super::lab::{RedirectLab, SERVER_V4, SERVER_V6, stop};

const TARGETS: u64 = 5000;

/// How original destinations reach the server.
#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    Range,
    Tuple,
}

/// Connects as `client` says from `namespace`: none may be missing, wrong or left over.
fn race(lab: &RedirectLab, namespace: &NetNs, scheme: Scheme, client: &str) {
    let count = scale::count(200_000, 10_000, 1000);
    let tuple = if scheme == Scheme::Tuple {
        "--tuple"
    } else {
        ""
    };
    let mut server = lab.bare_server(&format!(
        "--listen {SERVER_V4} --listen {SERVER_V6} --nodes {TARGETS} --node fd00:78::11 \
         --spin --threads 2 --seconds 600 {tuple}"
    ));
    let line = format!("race --targets {TARGETS} --count {count} {client}");
    let mut clients = lab.probe(namespace, &line).start().unwrap();
    let report: Race = parse(&clients.succeed(Duration::from_secs(500)).unwrap()).unwrap();
    let accepted = stop(&mut server);
    assert_eq!(
        (report.right, report.wrong),
        (count, 0),
        "{report:?} {accepted:?}"
    );
    assert!(report.failed.is_empty(), "{report:?} {accepted:?}");
    assert_eq!((accepted.known, accepted.unknown), (count, 0));
    assert_eq!(accepted.pending, 0, "tuples left over");
    assert_eq!(accepted.counters["redirected"], count);
    let (steered, noted) = match scheme {
        Scheme::Range => (count, 0),
        Scheme::Tuple => (0, count),
    };
    // A slow machine repeats a SYN, which is steered once more.
    let repeated = accepted.counters["steered"].checked_sub(steered);
    assert!(
        repeated.is_some_and(|more| more == 0 || scheme == Scheme::Range),
        "{accepted:?}"
    );
    assert_eq!(accepted.counters["redirected_by_tuple"], noted);
    assert_eq!(accepted.counters["handed_over"], noted);
}

/// Both schemes, each as a test of its own.
macro_rules! schemes {
    ($($name:ident($race:expr);)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn by_range() {
                $race(Scheme::Range);
            }

            #[test]
            fn by_tuple() {
                $race(Scheme::Tuple);
            }
        }
    )+};
}

schemes! {
    plain_connects(|scheme| {
        let lab = RedirectLab::new();
        race(&lab, lab.control(), scheme, "--to 10.200.0.0:10250");
    });
    non_blocking_connects(|scheme| {
        let lab = RedirectLab::new();
        race(&lab, lab.control(), scheme, "--to 10.200.0.0:10250 --nonblocking");
    });
    connects_with_data_in_the_syn(fast_open);
    connects_from_a_pod(|scheme| {
        let mut lab = RedirectLab::new();
        lab.lab.add_pod().unwrap();
        race(&lab, lab.lab.pod(0).namespace(), scheme, "--to 10.200.0.0:10250");
    });
    connects_over_ipv6(|scheme| {
        let lab = RedirectLab::new();
        race(&lab, lab.control(), scheme, "--to [fd00:78::11]:10250");
    });
}

fn fast_open(scheme: Scheme) {
    let lab = RedirectLab::new();
    // Both ends, without cookies, for every listener (ip-sysctl: tcp_fastopen, 0x607): the server
    // can accept before the client knows of the connection.
    let (key, value) = ("net.ipv4.tcp_fastopen", "1543");
    lab.control().sysctl(key, value).unwrap();
    race(
        &lab,
        lab.control(),
        scheme,
        "--to 10.200.0.0:10250 --fastopen",
    );
    let fast = fast_opens(lab.control());
    assert!(
        fast >= scale::count(200_000, 10_000, 1000) * 9 / 10,
        "only {fast}"
    );
}

/// How many connections the namespace accepted with data in their SYN.
fn fast_opens(namespace: &NetNs) -> u64 {
    let path = "/proc/thread-self/net/netstat";
    let statistics = namespace.run(|| std::fs::read_to_string(path)).unwrap();
    let mut lines = statistics
        .lines()
        .filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split(' ').zip(values.split(' '));
    let column = columns.find(|(name, _)| *name == "TCPFastOpenPassive");
    column.unwrap().1.parse().unwrap()
}
