use std::time::Duration;

use prometheus_client::{encoding::text, registry::Registry};
use time::OffsetDateTime;

use super::*;

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

#[test]
fn a_server_shows_exactly_this() {
    let mut registry = Registry::default();
    let metrics = ServerMetrics::register(&mut registry);
    ServerMetrics::register_redirect(
        &mut registry,
        Box::new(|| vec![("redirected", 7), ("gate_closed", 1)]),
    );
    metrics.sessions.set(2);
    metrics.nodes.set(3);
    metrics.redirect_entries.set(4);
    metrics.carried.to_target.inc_by(10);
    metrics.dials.succeeded(Duration::from_millis(20));
    metrics.dials.failed(DialFailure::Denied);
    metrics.without_original_destination.inc();
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
fn an_agent_shows_exactly_this() {
    let mut registry = Registry::default();
    let metrics = AgentMetrics::register(&mut registry);
    metrics.sessions.set(1);
    metrics.session_failures.inc();
    drop(metrics.connections.open());
    let expected = include_str!("agent.txt").replace("{version}", crate::VERSION);
    assert_eq!(scrape(&registry), sorted(&expected));
}

#[test]
fn a_connection_counts_as_open_until_it_is_dropped() {
    let metrics = ServerMetrics::register(&mut Registry::default());
    let first = metrics.connections.open(Frontend::Transparent);
    let second = metrics.connections.open(Frontend::Connect);
    assert_eq!(metrics.connections.open_now(), 2);
    first.end(Outcome::Reset);
    assert_eq!(metrics.connections.open_now(), 1);
    drop(second);
    assert_eq!(metrics.connections.open_now(), 0);
}
