//! Pods: which scheme serves them, what happens where nothing arrives, and who is no pod at all.

use std::time::{Duration, Instant};

use culvert_tests::report::{Connects, parse};

use super::lab::{NODE_V4, NODE_V6, PATIENCE, RedirectLab, stop};

/// One connect from a pod.
pub(super) fn connect(lab: &RedirectLab, pod: usize, line: &str) -> Connects {
    let pod = lab.lab.pod(pod).namespace();
    let mut client = lab
        .probe(pod, &format!("connect --greeting {line}"))
        .start()
        .unwrap();
    parse(&client.succeed(PATIENCE).unwrap()).unwrap()
}

/// Connects until one succeeds, as a client would that tries again.
fn connect_in_the_end(lab: &RedirectLab, pod: usize, line: &str) -> Connects {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = connect(lab, pod, line);
        if report.failures() == 0 {
            return report;
        }
        assert!(Instant::now() < deadline, "{line}: {report:?}");
        // Nothing to wait for: the next connect is what the programs learn from.
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_pod_without_a_route_to_the_range_is_served_by_notes_after_one_connect() {
    let mut lab = RedirectLab::new();
    lab.lab.add_confined_pod().unwrap();
    let mut server = lab.server("");
    for node in [NODE_V4, NODE_V6] {
        let report = connect_in_the_end(&lab, 0, &format!("--to {node}"));
        assert_eq!(report.greetings.first().unwrap(), node);
        assert_eq!(report.peers.first().unwrap().to_string(), node);
    }
    let later = connect(&lab, 0, &format!("--to {NODE_V4} --count 20"));
    assert_eq!(later.failures(), 0, "{later:?}");
    let report = stop(&mut server);
    assert_eq!(report.unknown, 0);
    assert!(report.counters["redirected_by_tuple"] >= 20, "{report:?}");
}

#[test]
fn nor_has_it_to_pause_between_its_connects() {
    let mut lab = RedirectLab::new();
    lab.lab.add_confined_pod().unwrap();
    let _server = lab.server("");
    let line = format!("flood --to {NODE_V4} --no-echo --threads 1 --seconds 3");
    let mut flood = lab
        .probe(lab.lab.pod(0).namespace(), &line)
        .start()
        .unwrap();
    let report: Connects = parse(&flood.succeed(PATIENCE).unwrap()).unwrap();
    assert!(report.succeeded > 0, "{report:?}");
}

/// A firewall of the machine lets nothing from pods in. The first connects hang; those after them get what
/// they get while no server is there, and the machine's own are unharmed.
#[test]
fn where_nothing_arrives_connects_end_at_once() {
    let mut lab = RedirectLab::new();
    lab.lab.add_pod().unwrap();
    let mut server = lab.server("--policy refuse");
    lab.control()
        .nft(
            "table inet firewall {
                 chain input {
                     type filter hook input priority 0
                     iifname \"pod1\" tcp flags & (syn|ack) == syn drop
                 }
             }\n",
        )
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = connect(&lab, 0, &format!("--to {NODE_V4} --timeout-ms 2500"));
        if report.failed.contains_key("connect ECONNREFUSED") {
            break;
        }
        assert!(Instant::now() < deadline, "{report:?}");
    }
    let started = Instant::now();
    let report = connect(&lab, 0, &format!("--to {NODE_V4} --timeout-ms 2500"));
    assert_eq!(report.failed["connect ECONNREFUSED"], 1, "{report:?}");
    assert!(started.elapsed() < Duration::from_secs(1));
    lab.reaches(&format!("--to {NODE_V4}"));

    // And it is found out when they arrive again.
    lab.control().nft("delete table inet firewall\n").unwrap();
    connect_in_the_end(&lab, 0, &format!("--to {NODE_V4}"));
    let report = stop(&mut server);
    assert!(report.counters["unreached_refuse"] >= 2, "{report:?}");
}

/// Another machine that sends packets for the range here is no client of this machine.
#[test]
fn a_stranger_on_the_network_gets_nothing() {
    let lab = RedirectLab::with_stranger();
    let mut server = lab.server("");
    lab.reaches(&format!("--to {NODE_V4}"));
    for to in ["198.18.0.1:10250", "10.77.0.1:20250"] {
        let stranger = lab.lab.router();
        let line = format!("connect --to {to} --greeting --timeout-ms 1500");
        let mut client = RedirectLab::outside(stranger, &line).start().unwrap();
        let report: Connects = parse(&client.succeed(PATIENCE).unwrap()).unwrap();
        assert_eq!(report.succeeded, 0, "{to}: {report:?}");
    }
    let report = stop(&mut server);
    assert_eq!((report.known, report.unknown), (1, 0));
    assert!(report.counters["steer_stranger"] > 0, "{report:?}");
    assert!(report.counters["steer_unannounced"] > 0, "{report:?}");
}

#[test]
fn pods_are_no_clients_where_only_the_machines_own_processes_are() {
    let mut lab = RedirectLab::new();
    lab.lab.add_pod().unwrap();
    let _server = lab.server("--own-namespace");
    let report = connect(&lab, 0, &format!("--to {NODE_V4}"));
    assert_eq!(
        report.failed["connect ENETUNREACH"], 1,
        "untouched: {report:?}"
    );
    // Nor by the addresses that stand for nodes.
    for to in [
        "198.18.0.1:10250",
        "198.18.0.2:10250",
        "[fd63:756c:7665:7274::1]:10250",
    ] {
        let report = connect(&lab, 0, &format!("--to {to}"));
        assert_eq!(report.succeeded, 0, "{to}: {report:?}");
    }
    lab.reaches(&format!("--to {NODE_V4}"));
}

#[test]
fn a_port_for_the_machine_itself_is_refused_to_pods() {
    for scheme in ["", "--tuple"] {
        let mut lab = RedirectLab::new();
        lab.lab.add_pod().unwrap();
        let _server = lab.server(&format!(
            "--port 10250 --port 10266 --own-namespace-port 10266 {scheme}"
        ));
        let report = connect(&lab, 0, "--to 10.78.0.11:10266");
        assert_eq!(report.failed["connect ECONNREFUSED"], 1, "{report:?}");
        let report = connect(&lab, 0, "--to 198.18.0.1:10266");
        assert_eq!(report.succeeded, 0, "{report:?}");
        connect(&lab, 0, &format!("--to {NODE_V4}"));
        lab.reaches("--to 10.78.0.11:10266");
    }
}

/// A client may dial the address that it was shown; what is not tunnelled stays closed there too.
#[test]
fn addresses_of_a_range_lead_to_tunnelled_ports_only() {
    let lab = RedirectLab::new();
    let mut server = lab.server("--extra-port 12000 --other 10.78.0.12");
    lab.reaches(&format!("--to {NODE_V4}"));
    let ports: Vec<String> = ["127.64.0.1", "127.64.0.2", "127.64.0.3"]
        .iter()
        .flat_map(|ip| [format!("{ip}:22"), format!("{ip}:10251")])
        .chain([
            "127.64.0.0:10250".to_owned(),
            "127.64.0.99:10250".to_owned(),
        ])
        .collect();
    for to in ports {
        assert_eq!(
            lab.fails(&format!("--to {to}")),
            "connect ECONNREFUSED",
            "{to}"
        );
    }
    assert_eq!(stop(&mut server).known, 1);
}
