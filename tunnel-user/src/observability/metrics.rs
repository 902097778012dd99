//! Metrics: one struct for each role, registered under a prefix of its own.
//!
//! Every label takes its values from an enum, so that no client, node or address can make the
//! number of series grow. What is counted once for each read or write is handed out as plain
//! counters, to be held by whoever carries the bytes.

mod agent;
mod certificates;
mod cluster;
mod connections;
mod dials;
mod http;
mod https;
mod labels;
mod memory;
mod process;
mod redirect;
mod relay;
mod server;
#[cfg(test)]
mod tests;
mod yurt_tunnel;

use prometheus_client::{
    metrics::info::Info,
    registry::{Metric, Registry},
};

pub use agent::AgentMetrics;
pub use certificates::Certificates;
pub use cluster::ReadCluster;
pub use connections::{AgentConnections, Carried, Connections, OpenConnection};
pub use dials::Dials;
pub use http::HttpRequests;
pub use https::HttpsRefusals;
pub use labels::{
    CodeClass, DialFailure, Direction, Frontend, HttpReason, HttpsRefusal, Outcome, PathClass,
    RelaySide, Verb,
};
pub use memory::{ConnectionMemory, ReadMemory};
pub(in crate::observability) use process::register_process;
pub use redirect::{ReadCounters, ReadSchemes, SchemeReport};
pub use relay::RelayMetrics;
pub use server::ServerMetrics;
pub use yurt_tunnel::{RequestUnderWay, RequestsUnderWay};

/// A number of things as a gauge shows it.
pub fn to_gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// A metric that is shown by this name from now on.
fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// Says which build runs: `<prefix>_build_info{version="..."} 1`.
fn register_build(registry: &mut Registry) {
    let build = Info::new([("version", crate::VERSION)]);
    registry.register("build", "The build that runs", build);
}
