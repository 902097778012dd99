//! Connects to Services with nodes among their endpoints: to no other address than what is dialled there is a route.

use std::collections::BTreeSet;

use culvert_tests::{
    Daemon,
    report::{Connects, parse},
    scale,
};
use rustix::process::Signal;
use tunnel_ebpf::{ABI, maps};

use super::{
    lab::{EDGE, NODE_V4, NODE_V6, PATIENCE, RedirectLab, SERVER_V4, SERVER_V6, stop},
    liveness::{flood_to, stop_flood},
    namespaces,
};

const SERVICE_V4: &str = "10.96.0.5:443";
const SERVICE_V6: &str = "[fd00:96::5]:443";
/// An endpoint that is no tunnelled node: a process of the control plane.
const CLOUD_V4: &str = "10.77.0.1:9443";
const CLOUD_V6: &str = "[fd00:77::1]:9443";
/// Enough connects for each of two endpoints to get some.
const MANY: u64 = 64;

/// A process behind an endpoint that is no tunnelled node. It says that address as the server says a node's.
fn cloud(lab: &RedirectLab, at: &str) -> Daemon {
    let line = format!("echo --bind {at} --seconds 120 --speak-first {at}");
    let mut cloud = RedirectLab::outside(lab.control(), &line).start().unwrap();
    cloud.wait_for_line("listening", PATIENCE).unwrap();
    cloud
}

fn greetings(report: &Connects) -> Vec<&str> {
    report.greetings.iter().map(String::as_str).collect()
}

fn peers(report: &Connects) -> Vec<String> {
    report.peers.iter().map(ToString::to_string).collect()
}

#[test]
fn every_kind_of_client_of_a_service_reaches_a_node_of_it_and_sees_what_it_dialled() {
    for scheme in ["", "--tuple"] {
        let lab = RedirectLab::new();
        let mut server = lab.server(&format!(
            "--service {SERVICE_V4}={NODE_V4} --service {SERVICE_V6}={NODE_V6} {scheme}"
        ));
        for (kind, to, node) in [
            ("", SERVICE_V4, NODE_V4),
            ("--nonblocking", SERVICE_V4, NODE_V4),
            ("--v4-mapped", SERVICE_V4, NODE_V4),
            ("", SERVICE_V6, NODE_V6),
            ("--v6-only", SERVICE_V6, NODE_V6),
            ("--nonblocking", SERVICE_V6, NODE_V6),
        ] {
            let (peer, heard) = lab.reaches(&format!("--to {to} {kind}"));
            assert_eq!((peer.as_str(), heard.as_str()), (to, node), "{kind}");
        }
        // On another port, and on the node's, nobody dials a Service.
        for other in ["10.96.0.5:10250", "10.96.0.6:443"] {
            assert_eq!(lab.fails(&format!("--to {other}")), "connect ENETUNREACH");
        }
        let report = stop(&mut server);
        assert_eq!((report.known, report.unknown, report.pending), (6, 0, 0));
        assert_eq!(report.counters["service_redirected"], 6);
        assert_eq!(report.counters["redirected"], 6);
    }
}

#[test]
fn a_service_on_a_tunnelled_port_is_caught_as_well() {
    let lab = RedirectLab::new();
    let service = "10.96.0.5:10250";
    let _server = lab.server(&format!("--service {service}={NODE_V4}"));
    let (peer, heard) = lab.reaches(&format!("--to {service}"));
    assert_eq!((peer.as_str(), heard.as_str()), (service, NODE_V4));
    lab.reaches(&format!("--to {NODE_V4}"));
}

#[test]
fn endpoints_that_are_no_nodes_are_reached_as_well() {
    for (service, cloud_at, node) in [
        (SERVICE_V4, CLOUD_V4, NODE_V4),
        (SERVICE_V6, CLOUD_V6, NODE_V6),
    ] {
        let lab = RedirectLab::new();
        let _cloud = cloud(&lab, cloud_at);
        let mut server = lab.server(&format!("--service {service}={cloud_at},{node}"));
        let report = lab.connects(&format!("--to {service} --count {MANY} --threads 1"));
        assert_eq!(report.failures(), 0, "{report:?}");
        assert_eq!(peers(&report), [service]);
        assert_eq!(
            report.greetings,
            BTreeSet::from([cloud_at, node].map(str::to_owned))
        );
        let counters = stop(&mut server).counters;
        let (direct, redirected) = (counters["service_direct"], counters["service_redirected"]);
        assert_eq!(direct + redirected, MANY, "{counters:?}");
        assert_eq!(
            (counters["other_port"], counters["redirected"]),
            (direct, redirected)
        );
    }
}

#[test]
fn a_service_without_a_node_among_its_endpoints_is_left_alone() {
    let lab = RedirectLab::new();
    let _cloud = cloud(&lab, CLOUD_V4);
    // Neither a node's address on another port, nor another's on a tunnelled port makes it one.
    let endpoints = format!("{CLOUD_V4},10.78.0.11:10251,10.78.0.12:10250");
    let mut server = lab.server(&format!("--service {SERVICE_V4}={endpoints}"));
    for _ in 0..8 {
        assert_eq!(
            lab.fails(&format!("--to {SERVICE_V4}")),
            "connect ENETUNREACH"
        );
    }
    let counters = stop(&mut server).counters;
    let of_services = counters
        .iter()
        .filter(|(name, _)| name.starts_with("service_"));
    assert_eq!(of_services.map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn clients_of_one_namespace_keep_to_one_endpoint_where_the_service_says_so() {
    let mut lab = RedirectLab::new();
    for _ in 0..8 {
        lab.lab.add_pod().unwrap();
    }
    let nodes: Vec<_> = (0..8).map(|i| format!("10.200.0.{i}:10250")).collect();
    let endpoints = nodes.join(",");
    let _server = lab.bare_server(&format!(
        "--listen {SERVER_V4} --nodes 8 --affinity --service {SERVICE_V4}={endpoints}"
    ));
    let mut chosen = BTreeSet::new();
    for pod in 0..8 {
        let line = format!("--to {SERVICE_V4} --count {MANY} --threads 4");
        let report = namespaces::connect(&lab, pod, &line);
        assert_eq!(
            (report.failures(), report.greetings.len()),
            (0, 1),
            "{report:?}"
        );
        chosen.extend(report.greetings);
    }
    assert!(chosen.len() > 1, "all namespaces got {chosen:?}");
}

#[test]
fn without_affinity_every_endpoint_gets_its_share() {
    let lab = RedirectLab::new();
    let nodes: Vec<_> = (0..4).map(|i| format!("10.200.0.{i}:10250")).collect();
    let endpoints = nodes.join(",");
    let _server = lab.bare_server(&format!(
        "--listen {SERVER_V4} --nodes 4 --service {SERVICE_V4}={endpoints}"
    ));
    let report = lab.connects(&format!("--to {SERVICE_V4} --count {MANY} --threads 1"));
    assert_eq!(report.failures(), 0, "{report:?}");
    assert_eq!(greetings(&report), nodes);
}

/// What is said of nodes counts: the mark, the gate, who may use the port.
#[test]
fn a_closed_gate_leaves_services_to_kube_proxy_or_refuses_their_connects() {
    for (policy, outcome) in [
        ("bypass", "connect ENETUNREACH"),
        ("refuse", "connect ECONNREFUSED"),
    ] {
        let lab = RedirectLab::new();
        let _cloud = cloud(&lab, CLOUD_V4);
        let service = format!("--service {SERVICE_V4}={CLOUD_V4},{NODE_V4} --policy {policy}");
        let mut server = lab.server(&format!("{service} --mark 7 --max-age-ms 500"));
        lab.reaches(&format!("--to {SERVICE_V4}"));
        assert_eq!(
            lab.fails(&format!("--to {SERVICE_V4} --mark 7")),
            "connect ENETUNREACH"
        );
        // Hung, then dead: whichever endpoint is chosen.
        server.signal(Signal::STOP).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(700));
        let hung = lab.connects(&format!("--to {SERVICE_V4} --count 16 --threads 1"));
        assert_eq!(hung.failed, [(outcome.to_owned(), 16)].into(), "{hung:?}");
        server.kill().unwrap();
        let dead = lab.connects(&format!("--to {SERVICE_V4} --count 16 --threads 1"));
        assert_eq!(dead.failed, [(outcome.to_owned(), 16)].into(), "{dead:?}");
    }
}

#[test]
fn a_port_for_the_servers_namespace_is_no_more_open_to_pods_by_a_service() {
    let mut lab = RedirectLab::new();
    lab.lab.add_pod().unwrap();
    let _server = lab.server(&format!(
        "--service {SERVICE_V4}={NODE_V4} --own-namespace-port 10250"
    ));
    lab.reaches(&format!("--to {SERVICE_V4}"));
    let report = namespaces::connect(&lab, 0, &format!("--to {SERVICE_V4}"));
    assert_eq!(
        report.failed,
        [("connect ECONNREFUSED".to_owned(), 1)].into()
    );
}

#[test]
fn pods_reach_nodes_by_a_service() {
    let mut lab = RedirectLab::new();
    lab.lab.add_pod().unwrap();
    let _server = lab.server(&format!(
        "--service {SERVICE_V4}={NODE_V4} --service {SERVICE_V6}={NODE_V6}"
    ));
    for (service, node) in [(SERVICE_V4, NODE_V4), (SERVICE_V6, NODE_V6)] {
        let report = namespaces::connect(&lab, 0, &format!("--to {service} --count 4"));
        assert_eq!(report.failures(), 0, "{report:?}");
        assert_eq!(
            (greetings(&report), peers(&report)),
            (vec![node], vec![service.to_owned()])
        );
    }
}

#[test]
fn a_socket_that_is_used_again_shows_what_it_dialled_last() {
    let lab = RedirectLab::new();
    let _server = lab.server(&format!("--service {SERVICE_V4}={NODE_V4}"));
    for (first, to) in [(SERVICE_V4, NODE_V4), (NODE_V4, SERVICE_V4)] {
        let (peer, heard) = lab.reaches(&format!("--to {to} --first {first}"));
        assert_eq!(
            (peer.as_str(), heard.as_str()),
            (to, NODE_V4),
            "after {first}"
        );
    }
}

#[test]
fn two_capabilities_are_enough_for_services_too() {
    let lab = RedirectLab::new();
    let services = format!("--service {SERVICE_V4}={NODE_V4} --service {SERVICE_V6}={NODE_V6}");
    let line = format!("{EDGE} {services}");
    let mut server = lab
        .confined_acceptor("+bpf,+net_admin", &line)
        .start()
        .unwrap();
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    lab.reaches(&format!("--to {SERVICE_V4}"));
    lab.reaches(&format!("--to {SERVICE_V6}"));
}

/// Endpoints come, go and change their numbers, and other Services with other endpoints take their places in the maps,
/// while thousands of connects run: none fails, and none goes to another Service's endpoint.
#[test]
fn no_connect_goes_astray_while_services_change() {
    let lab = RedirectLab::new();
    let count = scale::count(200_000, 20_000, 2_000);
    let nodes = |first: u32| {
        let nodes = (first..first + 200).map(|i| format!("10.200.0.{i}:10250"));
        nodes.collect::<Vec<_>>()
    };
    let (ours, v6) = (nodes(0), vec![NODE_V6.to_owned()]);
    let elsewhere = "10.200.0.250:10250";
    let mut server = lab.bare_server(&format!(
        "--listen {SERVER_V4} --listen {SERVER_V6} --nodes 256 --node fd00:78::11 --seconds 600 \
         --service {SERVICE_V4}={} --service {SERVICE_V6}={} --churn {elsewhere}",
        ours.join(","),
        v6.join(","),
    ));
    let mut total = 0;
    for (service, endpoints) in [(SERVICE_V4, ours), (SERVICE_V6, v6)] {
        let line = format!("--to {service} --count {} --threads 8", count / 8);
        let mut client = lab
            .probe(lab.control(), &format!("connect --greeting {line}"))
            .start()
            .unwrap();
        let report = client.succeed(std::time::Duration::from_mins(5)).unwrap();
        let report: Connects = parse(&report).unwrap();
        assert_eq!(report.failures(), 0, "{report:?}");
        let endpoints: BTreeSet<_> = endpoints.into_iter().collect();
        let astray: Vec<_> = report.greetings.difference(&endpoints).collect();
        assert!(astray.is_empty(), "{astray:?}");
        assert_eq!(peers(&report), [service]);
        total += report.succeeded;
    }
    let accepted = stop(&mut server);
    let output = server.output();
    assert!(output.contains("the services changed"), "{output}");
    assert_eq!(accepted.counters["service_redirected"], total);
    assert_eq!(accepted.counters["service_unread"], 0);
}

/// The next server of a lab, beside the one before on another port.
fn next(lab: &RedirectLab, port: &str, line: &str) -> Daemon {
    lab.bare_server(&format!("{} {line}", EDGE.replace("20250", port)))
}

/// A successor knows its cluster's Services only after a while.
#[test]
fn a_successor_goes_on_with_its_predecessors_services_without_one_failure() {
    let lab = RedirectLab::new();
    let mut server = lab.server(&format!("--service {SERVICE_V4}={NODE_V4}"));
    let flood = flood_to(&lab, SERVICE_V4);
    for port in ["20251", "20252", "20250"] {
        let next = next(&lab, port, "--left-services adopt");
        stop(&mut server);
        server = next;
    }
    let report = stop_flood(flood);
    assert!(report.succeeded > 0 && report.failures() == 0, "{report:?}");
    assert_eq!(peers(&report), [SERVICE_V4]);
}

/// Nobody has followed the cluster meanwhile: a `ClusterIP` may be another Service's by now.
#[test]
fn services_from_before_a_server_that_knew_of_none_are_caught_no_more() {
    let lab = RedirectLab::new();
    let service = format!("--service {SERVICE_V4}={NODE_V4}");
    let mut first = lab.server(&service);
    lab.reaches(&format!("--to {SERVICE_V4}"));
    let mut older = next(&lab, "20251", "--left-services ignore");
    stop(&mut first);
    assert_eq!(
        lab.fails(&format!("--to {SERVICE_V4}")),
        "connect ENETUNREACH"
    );
    lab.reaches(&format!("--to {NODE_V4}"));
    let mut third = next(&lab, "20252", "--left-services adopt");
    stop(&mut older);
    assert_eq!(
        lab.fails(&format!("--to {SERVICE_V4}")),
        "connect ENETUNREACH"
    );
    let _last = next(&lab, "20250", &service);
    stop(&mut third);
    lab.reaches(&format!("--to {SERVICE_V4}"));
}

#[test]
fn a_version_that_has_no_maps_of_services_is_followed_without_one_failure() {
    let lab = RedirectLab::new();
    let mut older = lab.server("--left-services ignore");
    for map in [
        maps::SERVICE_PORTS,
        maps::SERVICES,
        maps::BACKENDS,
        maps::SERVICE_OWNERS,
        maps::SERVICE_DST,
        maps::SERVICE_COUNTS,
    ] {
        std::fs::remove_file(lab.pins.path().join(format!("v{ABI}")).join(map)).unwrap();
    }
    let flood = flood_to(&lab, NODE_V4);
    let _server = next(&lab, "20251", &format!("--service {SERVICE_V4}={NODE_V4}"));
    stop(&mut older);
    lab.reaches(&format!("--to {SERVICE_V4}"));
    let report = stop_flood(flood);
    assert!(report.succeeded > 0 && report.failures() == 0, "{report:?}");
}
