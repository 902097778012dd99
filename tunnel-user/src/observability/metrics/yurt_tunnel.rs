//! What is counted here under the names that Yurt-Tunnel 1.5 and its konnectivity have for it, for dashboards and
//! alerts that were made for them.
//!
//! Only what is true: labels that name agents or whole paths are left out or bounded, and what nobody counts here has
//! no line.

use http::Method;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    AgentMetrics, ServerMetrics,
    labels::{ByVerbAndPath, PathClass, Verb},
};

/// Requests to the HTTP port, and to the HTTPS port where TLS ends, that are being answered.
#[derive(Clone, Debug, Default)]
pub struct RequestsUnderWay {
    of_kind: Family<ByVerbAndPath, Gauge>,
    all: Gauge,
}

/// One of them: counted until it is dropped.
#[derive(Debug)]
#[must_use = "the request counts as under way only as long as this lives"]
pub struct RequestUnderWay {
    of_kind: Gauge,
    all: Gauge,
}

impl ServerMetrics {
    /// Shows what it counts under those names, too. Call it once.
    pub fn register_yurt_tunnel(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("yurttunnel_server");
        own.register(
            "in_proxy_requests",
            "HTTP requests that are being answered, by method and the beginning of the path",
            self.requests_under_way.of_kind.clone(),
        );
        own.register(
            "total_in_proxy_requests",
            "HTTP requests that are being answered",
            self.requests_under_way.all.clone(),
        );
        own.register(
            "cloud_nodes_counter",
            "Nodes that are not tunnelled",
            self.cloud_nodes.clone(),
        );
        let konnectivity = registry.sub_registry_with_prefix("konnectivity_network_proxy_server");
        konnectivity.register(
            "total_registered_agents",
            "Nodes whose agent has a session",
            self.connected_nodes.clone(),
        );
        self.dials
            .show_duration_as(konnectivity, "dial_duration", DIAL_HELP);
    }
}

impl AgentMetrics {
    /// Shows what it counts under konnectivity's names, too. Call it once.
    pub fn register_yurt_tunnel(&self, registry: &mut Registry) {
        let konnectivity = registry.sub_registry_with_prefix("konnectivity_network_proxy_agent");
        self.dials
            .show_duration_as(konnectivity, "dial_duration", DIAL_HELP);
    }
}

const DIAL_HELP: &str = "Time of dials that succeeded";

impl RequestsUnderWay {
    /// Counts a request.
    pub fn begin(&self, method: &Method, path: &str) -> RequestUnderWay {
        let labels = ByVerbAndPath {
            verb: Verb::of(method),
            path: PathClass::of(path),
        };
        let of_kind = self.of_kind.get_or_create(&labels).clone();
        let all = self.all.clone();
        of_kind.inc();
        all.inc();
        RequestUnderWay { of_kind, all }
    }
}

impl Drop for RequestUnderWay {
    fn drop(&mut self) {
        self.of_kind.dec();
        self.all.dec();
    }
}

impl Verb {
    fn of(method: &Method) -> Self {
        let is_it = |verb: &Self| verb.as_str() == method.as_str();
        Self::ALL.iter().copied().find(is_it).unwrap_or(Self::Other)
    }
}

impl PathClass {
    /// The first part of a path decides.
    fn of(path: &str) -> Self {
        let rest = path.strip_prefix('/').unwrap_or_default();
        let first = rest.split('/').next().unwrap_or_default();
        let is_it = |class: &Self| class.as_str().strip_prefix('/') == Some(first);
        Self::ALL.iter().copied().find(is_it).unwrap_or(Self::Other)
    }
}
