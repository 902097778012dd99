//! What a process in a network namespace of its own can do to connections of others. It chooses its
//! addresses and ports, so a connection's 4-tuple is no secret and no proof.
//!
//! Each attack is tried on both schemes: where a range serves the victim nothing may happen at all; where
//! notes do, no connection may ever reach another node.

use std::time::Duration;

use culvert_tests::{
    Daemon, NetNs,
    report::{Accepted, Race, parse},
    scale,
};

use super::lab::{PATIENCE, RedirectLab, stop};

/// The node that the victim dials, and the one that the attacker wants its connections to reach.
const SERVER: &str = "--listen 10.77.0.1:20250 --listen [fd00:77::1]:20250 \
                      --node 10.78.0.11 --node fd00:78::11 \
                      --other 10.78.0.12 --other fd00:78::12 --spin --seconds 300";

/// A lab with a namespace whose owner has given it the addresses of others.
fn lab_with_impostor(addresses: &[&str]) -> RedirectLab {
    let mut lab = RedirectLab::new();
    let addresses: Vec<_> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    lab.lab.add_island(&addresses).unwrap();
    lab
}

/// Connects of the victim while the attacker is at work.
fn attacked(
    lab: &RedirectLab,
    scheme: &str,
    (victim, its_line): (&NetNs, &str),
    (attacker, line): (&NetNs, &str),
) -> (Race, Accepted) {
    let mut server = lab.bare_server(&format!("{SERVER} {scheme}"));
    let mut attacker: Daemon = lab
        .probe(attacker, &format!("forge --seconds 120 {line}"))
        .start()
        .unwrap();
    attacker.wait_for_line("forging", PATIENCE).unwrap();
    let line = format!("race --targets 1 --threads 1 {its_line}");
    let mut clients = lab.probe(victim, &line).start().unwrap();
    let report: Race = parse(&clients.succeed(Duration::from_secs(200)).unwrap()).unwrap();
    attacker.kill().unwrap();
    let accepted = stop(&mut server);
    assert_eq!(report.wrong, 0, "{report:?} {accepted:?}");
    (report, accepted)
}

fn unharmed((report, accepted): (Race, Accepted), count: u64) {
    assert_eq!(report.right, count, "{report:?} {accepted:?}");
    assert!(report.failed.is_empty(), "{report:?} {accepted:?}");
}

fn connects() -> u64 {
    scale::count(3000, 1000, 200)
}

#[test]
fn a_known_port_of_the_machine_itself_is_of_no_use() {
    for scheme in ["", "--tuple"] {
        let lab = lab_with_impostor(&["10.77.0.1"]);
        let count = connects();
        let victim =
            format!("--to 10.78.0.11:10250 --bind 10.77.0.1 --source-port 40001 --count {count}");
        let attack = "--to 10.78.0.12:10250 --from 10.77.0.1 --port 40001";
        let attacker = lab.lab.island(0);
        unharmed(
            attacked(&lab, scheme, (lab.control(), &victim), (attacker, attack)),
            count,
        );
    }
}

#[test]
fn neither_is_one_whose_syn_is_lost() {
    for scheme in ["", "--tuple"] {
        let lab = lab_with_impostor(&["10.77.0.1"]);
        lab.control()
            .nft(
                "table inet lossy {
                     chain input {
                         type filter hook input priority 0
                         tcp dport { 10250, 20250 } tcp flags & (syn|ack) == syn numgen inc mod 2 0 drop
                     }
                 }\n",
            )
            .unwrap();
        let victim = "--to 10.78.0.11:10250 --bind 10.77.0.1 --source-port 40001 --count 4";
        let attack = "--to 10.78.0.12:10250 --from 10.77.0.1 --port 40001";
        let attacker = lab.lab.island(0);
        unharmed(
            attacked(&lab, scheme, (lab.control(), victim), (attacker, attack)),
            4,
        );
    }
}

#[test]
fn neither_are_ports_that_can_be_predicted() {
    for scheme in ["", "--tuple"] {
        let lab = lab_with_impostor(&["10.77.0.1"]);
        let (key, value) = ("net.ipv4.ip_local_port_range", "40000 40063");
        lab.control().sysctl(key, value).unwrap();
        let count = connects();
        let victim = format!("--to 10.78.0.11:10250 --count {count}");
        let attack = "--to 10.78.0.12:10250 --from 10.77.0.1 --port 40000 --ports 64";
        let attacker = lab.lab.island(0);
        unharmed(
            attacked(&lab, scheme, (lab.control(), &victim), (attacker, attack)),
            count,
        );
    }
}

#[test]
fn nobody_wipes_what_another_namespace_noted() {
    for scheme in ["", "--tuple"] {
        let lab = lab_with_impostor(&["10.77.0.1"]);
        let count = connects();
        let victim =
            format!("--to 10.78.0.11:10250 --bind 10.77.0.1 --source-port 40003 --count {count}");
        let attack = "--to 10.77.0.1:20250 --from 10.77.0.1 --port 40003";
        let attacker = lab.lab.island(0);
        unharmed(
            attacked(&lab, scheme, (lab.control(), &victim), (attacker, attack)),
            count,
        );
    }
}

/// Over IPv6 it takes no privilege to connect from an address that one does not have.
#[test]
fn a_pod_that_borrows_the_machines_ipv6_address_leads_nobody_astray() {
    for scheme in ["", "--tuple"] {
        let mut lab = RedirectLab::new();
        lab.lab.add_pod().unwrap();
        let count = connects();
        let victim = format!(
            "--to [fd00:78::11]:10250 --bind fd00:77::1 --source-port 40001 --count {count}"
        );
        let attack = "--to [fd00:78::12]:10250 --from fd00:77::1 --port 40001";
        let pod = lab.lab.pod(0).namespace();
        let report = attacked(&lab, scheme, (lab.control(), &victim), (pod, attack));
        // Its forged SYNs carry the very addresses of the victim's connection where notes serve that, and
        // may break it, as they may any connection of the machine to itself.
        if scheme.is_empty() {
            unharmed(report, count);
        }
    }
}

/// A pod's address in a namespace of somebody else.
#[test]
fn a_pod_is_unharmed_where_a_range_serves_it_and_never_led_astray_where_notes_do() {
    for scheme in ["", "--tuple"] {
        let mut lab = lab_with_impostor(&["10.77.0.1", "10.79.1.2"]);
        lab.lab.add_pod().unwrap();
        let count = connects();
        let victim =
            format!("--to 10.78.0.11:10250 --bind 10.79.1.2 --source-port 40001 --count {count}");
        let attack = "--to 10.78.0.12:10250 --from 10.79.1.2 --port 40001";
        let attacker = lab.lab.island(0);
        let pod = lab.lab.pod(0).namespace();
        let (report, accepted) = attacked(&lab, scheme, (pod, &victim), (attacker, attack));
        if scheme.is_empty() {
            unharmed((report, accepted), count);
        } else {
            let ambiguous = accepted.counters["pending_ambiguous"];
            assert!(ambiguous > 0, "no attack at all: {report:?} {accepted:?}");
        }
    }
}

/// A socket that waits there in `SYN_SENT`, for the port that a client is about to have, would be found before any
/// listener is looked for: a simultaneous open, and the client would take it for the node.
#[test]
fn addresses_that_stand_for_nodes_are_nobodys_to_bind() {
    let mut lab = RedirectLab::new();
    lab.lab.add_pod().unwrap();
    let _server = lab.server("");
    for address in [
        "127.64.0.1:10255",
        "198.18.0.1:10255",
        "[::ffff:127.64.0.1]:10255",
        "[fd63:756c:7665:7274::1]:10255",
    ] {
        let line = format!("echo --bind {address} --seconds 20");
        let mut bound = lab.probe(lab.control(), &line).start().unwrap();
        let refused = bound.succeed(PATIENCE).unwrap_err().to_string();
        assert!(refused.contains("not permitted"), "{address}: {refused}");
    }
    // Other addresses can be, and in another network namespace these are ordinary ones.
    let pod = lab.lab.pod(0).namespace();
    for (namespace, address) in [
        (lab.control(), "127.0.0.1:10255"),
        (pod, "127.64.0.1:10255"),
    ] {
        let line = format!("echo --bind {address} --seconds 20");
        let mut bound = lab.probe(namespace, &line).start().unwrap();
        bound.wait_for_line("listening", PATIENCE).unwrap();
    }
}
