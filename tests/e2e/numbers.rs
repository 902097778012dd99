//! Metrics and status tell the truth about what has just happened.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use culvert_tests::report::{Connects, parse};

use crate::stage::{NODE, OTHER, PATIENCE, Stage};

#[test]
fn bytes_connections_and_failures_are_counted_at_both_ends() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, _agent) = stage.culvert("", "");
    let (mut client, mut accepted) = stage.pair(&target);
    assert_eq!(
        stage.metric("connections_open{frontend=\"transparent\"}"),
        1
    );
    assert_eq!(stage.agent_metric(0, "connections_open"), 1);

    client.write_all(&[1; 1000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    accepted.read_to_end(&mut Vec::new()).unwrap();
    accepted.write_all(&[2; 3000]).unwrap();
    drop(accepted);
    client.read_to_end(&mut Vec::new()).unwrap();
    stage.until("the connection has ended", |status| {
        status.sessions[0].open_connections == 0
    });
    let session = stage.status().sessions.remove(0);
    assert_eq!(
        (session.bytes_to_target, session.bytes_to_client),
        (1000, 3000)
    );
    for (direction, bytes) in [("to_target", 1000), ("to_client", 3000)] {
        let series = format!("carried_bytes_total{{direction=\"{direction}\"}}");
        assert_eq!(stage.metric(&series), bytes);
        assert_eq!(stage.agent_metric(0, &series), bytes);
    }
    let completed = "connections_total{frontend=\"transparent\",outcome=\"completed\"}";
    assert_eq!(stage.metric(completed), 1);
    assert_eq!(
        stage.agent_metric(0, "connections_total{outcome=\"completed\"}"),
        1
    );

    // Nobody listens there.
    stage.is_reset(OTHER);
    assert_eq!(stage.metric("dial_failures_total{cause=\"refused\"}"), 1);
    assert_eq!(
        stage.agent_metric(0, "dial_failures_total{cause=\"refused\"}"),
        1
    );
    let failed = "connections_total{frontend=\"transparent\",outcome=\"dial_failed\"}";
    assert_eq!(stage.metric(failed), 1);
    assert_eq!(
        stage.metric("connections_open{frontend=\"transparent\"}"),
        0
    );
    assert_eq!(stage.metric("dial_duration_seconds_count"), 1);
}

#[test]
fn status_shows_nodes_sessions_redirect_and_certificates() {
    let stage = Stage::with_edges(2);
    let _target = stage.target(&format!("--bind {NODE}"));
    let server = stage.server("");
    let empty = stage.status();
    assert_eq!((empty.nodes.len(), empty.sessions.len()), (0, 0));
    let _first = stage.agent(0, "");
    let mut second = stage.agent(1, "");
    second.kill().unwrap();
    stage.until_connected(1, false);
    stage.works(NODE);

    let status = stage.status();
    assert_eq!(status.pid, server.pid());
    let nodes: Vec<_> = status
        .nodes
        .iter()
        .map(|node| (node.name.as_str(), node.connected))
        .collect();
    assert_eq!(nodes, [("edge-1", true), ("edge-2", false)]);
    assert_eq!(status.sessions.len(), 1);
    assert_eq!(
        status.sessions[0].remote.ip().to_string(),
        "10.77.0.254",
        "the NAT, as the server sees it"
    );
    let redirect = status.redirect.unwrap();
    assert!(redirect.gate_open);
    assert_eq!((redirect.entries, redirect.ports), (4, vec![10250, 10255]));
    let names: Vec<_> = status
        .certificates
        .iter()
        .map(|each| each.name.as_str())
        .collect();
    assert_eq!(names, ["ca", "server"]);
    assert_eq!(stage.metric("nodes"), 2);
    assert_eq!(stage.metric("redirect_entries"), 4);
    for event in ["redirected", "steered"] {
        let series = format!("redirect_events_total{{event=\"{event}\"}}");
        stage.until("the client is counted once, besides probes", |status| {
            let probes = stage.metric("arrival_probes_total");
            let counted = status.redirect.as_ref().unwrap().counters[event];
            counted == probes + 1 && stage.metric(&series) == probes + 1
        });
    }

    let agent = stage.agent_status(0);
    assert_eq!(agent.nodes[0].name.as_str(), "edge-1");
    assert!(agent.nodes[0].connected);
    assert_eq!(agent.sessions[0].remote.to_string(), "10.77.0.1:10262");
}

#[test]
fn whoever_dials_the_redirects_listener_directly_is_refused_and_counted() {
    let stage = Stage::new();
    let (_server, _agent) = stage.culvert("", "");
    assert_eq!(stage.fails("10.77.0.1:10270"), "connect ECONNREFUSED");
    let refused = "redirect_events_total{event=\"steer_unannounced\"}";
    assert_eq!(stage.metric(refused), 1);
    assert_eq!(stage.metric("without_original_destination_total"), 0);
    assert_eq!(stage.metric("connections_total{frontend"), 0);
}

#[test]
fn clients_have_as_many_ports_for_each_node_as_without_a_redirect() {
    const NODES: u8 = 3;
    /// Of 500, for each node.
    const CONNECTIONS: u64 = 450;
    let stage = Stage::with_edges(NODES);
    let _server = stage.server("");
    let address = |node: u8| format!("{}:10250", stage.lab().edge(node.into()).ipv4());
    let programs: Vec<_> = (0..NODES)
        .map(|node| {
            let edge = stage.lab().edge(node.into()).namespace();
            let line = format!("echo --seconds 300 --bind {}", address(node));
            let mut target = stage.probe(edge, &line).start().unwrap();
            target.wait_for_line("listening", PATIENCE).unwrap();
            (target, stage.agent(node.into(), ""))
        })
        .collect();
    let (key, range) = ("net.ipv4.ip_local_port_range", "40000 40499");
    stage.control().sysctl(key, range).unwrap();
    let clients: Vec<_> = (0..NODES)
        .map(|node| {
            let to = address(node);
            let line = format!("connect --to {to} --count {CONNECTIONS} --hold-seconds 30 --echo");
            let mut client = stage.probe(stage.control(), &line).start().unwrap();
            client.wait_for_line("holding", PATIENCE).unwrap();
            client
        })
        .collect();
    for mut client in clients {
        let report: Connects = parse(&client.succeed(PATIENCE).unwrap()).unwrap();
        assert_eq!(report.succeeded, CONNECTIONS, "{report:?}");
    }
    drop(programs);
}
