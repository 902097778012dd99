use std::{sync::Arc, time::Duration};

use prometheus_client::{encoding::text, registry::Registry};
use time::OffsetDateTime;

use super::*;
use crate::observability::status::{ApprovalStatus, ClusterStatus, PublishedKind, PublishedStatus};

/// The text without the order of series, which is that of a hash map.
fn scrape(registry: &Registry) -> Vec<String> {
    let mut text = String::new();
    text::encode(&mut text, registry).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines
}

fn memory() -> ConnectionMemory {
    ConnectionMemory {
        held: 1,
        limit: 2,
        window: 3,
        grown: 4,
    }
}

fn published() -> Vec<PublishedStatus> {
    let names = PublishedStatus {
        kind: PublishedKind::Names,
        object: "kube-system/names".to_owned(),
        entries: 4,
        bytes: Some(100),
        limit: Some(1000),
        written_at: Some(OffsetDateTime::from_unix_timestamp(1_800_000_001).unwrap()),
        writes: 6,
        troubles: vec!["something".to_owned()],
    };
    let ports = PublishedStatus {
        kind: PublishedKind::ServicePorts,
        entries: 2,
        bytes: None,
        limit: None,
        written_at: None,
        writes: 0,
        troubles: Vec::new(),
        ..names.clone()
    };
    vec![names, ports]
}

#[test]
fn a_server_shows_exactly_this() {
    let mut registry = Registry::default();
    let metrics = ServerMetrics::register(&mut registry);
    ServerMetrics::register_redirect(
        &mut registry,
        Box::new(|| vec![("redirected", 7), ("gate_closed", 1)]),
        Box::new(|| SchemeReport {
            schemes: vec![("host", "range"), ("pods", "tuple")],
            namespaces: vec![("range", 0), ("tuple", 3)],
        }),
    );
    let cluster = ClusterStatus {
        confirmed_at: Some(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()),
        trouble: None,
        leader: None,
        leading: true,
        servers: 3,
        events_lost: 5,
        approvals: ApprovalStatus {
            enabled: true,
            approved: 5,
            denied: 1,
            pending: 2,
        },
        published: published(),
    };
    ServerMetrics::register_cluster(&mut registry, Arc::new(move || cluster.clone()));
    ServerMetrics::register_memory(&mut registry, Box::new(memory));
    metrics.sessions.set(2);
    metrics.nodes.set(3);
    metrics.redirect_entries.set(4);
    metrics.redirect_services.set(2);
    metrics.redirect_service_endpoints.set(6);
    metrics.services_without_room.set(1);
    metrics.carried.to_target.inc_by(10);
    metrics.dials.succeeded(Duration::from_millis(20));
    metrics.dials.failed(DialFailure::Denied);
    metrics.relay.answered.inc();
    metrics
        .http_requests
        .count(::http::StatusCode::BAD_GATEWAY, HttpReason::DialFailed);
    metrics
        .https_requests
        .count(::http::StatusCode::FORBIDDEN, HttpReason::NotPermitted);
    metrics.without_original_destination.inc();
    metrics.https_refusals.count(HttpsRefusal::UnknownName);
    let expires = OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap();
    metrics.certificates.set_expiry("ca", expires);
    metrics
        .connections
        .open(Frontend::Transparent)
        .end(Outcome::Completed);
    let _still_open = metrics.connections.open(Frontend::Transparent);
    let expected = include_str!("server.txt").replace("{version}", crate::VERSION);
    assert_eq!(scrape(&registry), sorted(&expected));
}

#[test]
fn for_dashboards_of_yurt_tunnel_a_server_shows_exactly_this_besides() {
    let (mut own, mut registry) = (Registry::default(), Registry::default());
    let metrics = ServerMetrics::register(&mut own);
    metrics.register_yurt_tunnel(&mut registry);
    let begin = |method, path| metrics.requests_under_way.begin(&method, path);
    let _logs = begin(::http::Method::GET, "/containerLogs/default/p/c");
    let _scrapes = ["/metrics", "/metrics/cadvisor"].map(|path| begin(::http::Method::GET, path));
    let _odd = begin("BREW".parse().unwrap(), "/metricsandmore");
    drop(begin(::http::Method::POST, "/exec/default/p/c"));
    metrics.cloud_nodes.set(3);
    metrics.connected_nodes.set(2);
    metrics.dials.succeeded(Duration::from_millis(20));
    let expected = include_str!("yurt_tunnel_server.txt");
    assert_eq!(scrape(&registry), sorted(expected));
}

#[test]
fn for_dashboards_of_yurt_tunnel_an_agent_shows_exactly_this_besides() {
    let (mut own, mut registry) = (Registry::default(), Registry::default());
    let metrics = AgentMetrics::register(&mut own);
    metrics.register_yurt_tunnel(&mut registry);
    metrics.dials.succeeded(Duration::from_millis(20));
    let expected = include_str!("yurt_tunnel_agent.txt");
    assert_eq!(scrape(&registry), sorted(expected));
}

#[test]
fn an_agent_shows_exactly_this() {
    let mut registry = Registry::default();
    let metrics = AgentMetrics::register(&mut registry);
    AgentMetrics::register_memory(&mut registry, Box::new(memory));
    metrics.sessions.set(1);
    metrics.servers.set(2);
    metrics.session_failures.inc();
    drop(metrics.connections.open());
    let expected = include_str!("agent.txt").replace("{version}", crate::VERSION);
    assert_eq!(scrape(&registry), sorted(&expected));
}

#[test]
fn a_connection_counts_as_open_until_it_is_dropped() {
    let mut registry = Registry::default();
    let metrics = ServerMetrics::register(&mut registry);
    let open = || {
        let lines = scrape(&registry).into_iter();
        let open = lines.filter(|line| line.starts_with("culvert_server_connections_open{"));
        open.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum::<u64>()
    };
    let first = metrics.connections.open(Frontend::Transparent);
    let second = metrics.connections.open(Frontend::Connect);
    assert_eq!(open(), 2);
    first.end(Outcome::Reset);
    assert_eq!(open(), 1);
    drop(second);
    assert_eq!(open(), 0);
}

#[test]
fn each_session_of_an_agent_counts_its_own_connections() {
    let metrics = AgentMetrics::register(&mut Registry::default());
    let (one, other) = (
        metrics.connections.of_session(),
        metrics.connections.of_session(),
    );
    let first = one.open();
    let _second = one.open();
    let _third = other.open();
    assert_eq!((one.open_in_session(), other.open_in_session()), (2, 1));
    first.end(Outcome::Reset);
    assert_eq!((one.open_in_session(), other.open_in_session()), (1, 1));
}

#[test]
fn every_metric_of_the_alerts_is_one_of_ours() {
    let alerts = include_str!("../../../../deploy/prometheus/alerts.yaml");
    let ours = [include_str!("server.txt"), include_str!("agent.txt")].concat();
    let names = alerts.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names: Vec<_> = names
        .filter(|name| name.starts_with("culvert_server_") || name.starts_with("culvert_agent_"))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let is_shown = |line: &str| {
            let (shown, _) = line.split_once(['{', ' ']).unwrap_or((line, ""));
            shown == name
        };
        assert!(ours.lines().any(is_shown), "{name} is in no scrape");
    }
}
