//! What a server counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{
    Carried, Certificates, Connections, Dials, HttpRequests, HttpsRefusals, ReadCluster,
    ReadCounters, ReadMemory, ReadSchemes, RelayMetrics, RequestsUnderWay,
    cluster::Cluster,
    memory::Memory,
    redirect::{RedirectEvents, RedirectSchemes},
    register_build, registered,
};

/// The metrics of a server, `culvert_server_*`. Clones count into the same numbers.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    /// Sessions of agents that are open.
    pub sessions: Gauge,
    /// Sessions that were refused: the identity does not prove what the agent claims.
    pub sessions_refused: Counter,
    /// Connections of clients.
    pub connections: Connections,
    /// Bytes of those connections.
    pub carried: Carried,
    /// Dials through sessions.
    pub dials: Dials,
    /// Connections that went through another server.
    pub relay: RelayMetrics,
    /// Requests to the HTTP frontend.
    pub http_requests: HttpRequests,
    /// Those that are being answered, there and at the HTTPS port.
    pub requests_under_way: RequestsUnderWay,
    /// Requests to the HTTPS port whose TLS ends here.
    pub https_requests: HttpRequests,
    /// Accepted connections that the kernel programs know nothing of; they are closed.
    pub without_original_destination: Counter,
    /// Connects by which the server proved to itself that what it captures arrives.
    pub arrival_probes: Counter,
    /// Those that did not arrive.
    pub arrival_probe_failures: Counter,
    /// Accepted connections of clients that may not use the redirect.
    pub clients_refused: Counter,
    /// Clients of the HTTPS ports that were not carried.
    pub https_refusals: HttpsRefusals,
    /// Nodes of the current snapshot.
    pub nodes: Gauge,
    /// Nodes that can be dialled.
    pub connected_nodes: Gauge,
    /// Nodes of the cluster that are not tunnelled.
    pub cloud_nodes: Gauge,
    /// Addresses in the kernel's table of nodes.
    pub redirect_entries: Gauge,
    /// Ports of Services in the kernel's table.
    pub redirect_services: Gauge,
    /// Endpoints of these.
    pub redirect_service_endpoints: Gauge,
    /// Ports of Services for which the table has no room.
    pub services_without_room: Gauge,
    /// Expiry of `ca`, `server`, `relay` and `proxy`.
    pub certificates: Certificates,
}

impl ServerMetrics {
    /// Registers the metrics of a server.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("culvert_server");
        register_build(registry);
        Self {
            // In the order in which they are shown.
            connections: Connections::register(registry),
            carried: Carried::register(registry),
            dials: Dials::register(registry),
            relay: RelayMetrics::register(registry),
            http_requests: HttpRequests::register(
                registry,
                "http_requests",
                "Requests to the HTTP frontend, by what was answered and why",
            ),
            https_requests: HttpRequests::register(
                registry,
                "https_requests",
                "Requests to the HTTPS port whose TLS ends here, by what was answered and why",
            ),
            https_refusals: HttpsRefusals::register(registry),
            certificates: Certificates::register(registry),
            sessions: registered(registry, "sessions", "Open sessions"),
            sessions_refused: registered(
                registry,
                "sessions_refused",
                "Sessions refused because the identity does not prove what the agent claims",
            ),
            without_original_destination: registered(
                registry,
                "without_original_destination",
                "Accepted connections closed because the kernel programs know nothing of them",
            ),
            arrival_probes: registered(
                registry,
                "arrival_probes",
                "Connects of the server's own that prove that what is captured arrives",
            ),
            arrival_probe_failures: registered(
                registry,
                "arrival_probe_failures",
                "Connects of the server's own that did not arrive",
            ),
            clients_refused: registered(
                registry,
                "clients_refused",
                "Accepted connections closed because their clients are in none of --clients",
            ),
            nodes: registered(registry, "nodes", "Nodes known"),
            connected_nodes: registered(registry, "connected_nodes", "Nodes that have a session"),
            redirect_entries: registered(
                registry,
                "redirect_entries",
                "Addresses of nodes in the kernel's table",
            ),
            redirect_services: registered(
                registry,
                "redirect_services",
                "Ports of Services whose connects reach nodes among their endpoints",
            ),
            redirect_service_endpoints: registered(
                registry,
                "redirect_service_endpoints",
                "Endpoints of those Services",
            ),
            services_without_room: registered(
                registry,
                "services_without_room",
                "Ports of Services whose connects do not reach nodes, as they are too many",
            ),
            // Shown by Yurt-Tunnel's names, if at all.
            requests_under_way: RequestsUnderWay::default(),
            cloud_nodes: Gauge::default(),
        }
    }

    /// Publishes how the server stands with its cluster, read at each scrape. Call it once.
    pub fn register_cluster(registry: &mut Registry, read: ReadCluster) {
        registry
            .sub_registry_with_prefix("culvert_server")
            .register_collector(Box::new(Cluster(read)));
    }

    /// Publishes the memory of connections, read at each scrape. Call it once.
    pub fn register_memory(registry: &mut Registry, read: ReadMemory) {
        registry
            .sub_registry_with_prefix("culvert_server")
            .register_collector(Box::new(Memory(read)));
    }

    /// Publishes the kernel programs' counters, read at each scrape. Call it once.
    pub fn register_redirect(registry: &mut Registry, read: ReadCounters, schemes: ReadSchemes) {
        let registry = registry.sub_registry_with_prefix("culvert_server");
        registry.register_collector(Box::new(RedirectEvents(read)));
        registry.register_collector(Box::new(RedirectSchemes(schemes)));
    }
}
