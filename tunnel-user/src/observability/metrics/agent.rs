//! What an agent counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{
    AgentConnections, Carried, Certificates, Dials, ReadMemory, memory::Memory, register_build,
    registered,
};

/// The metrics of an agent, `culvert_agent_*`. Clones count into the same numbers.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// Sessions to servers that are open.
    pub sessions: Gauge,
    /// Servers that there are, as they say; each should have a session.
    pub servers: Gauge,
    /// Attempts to open a session that failed.
    pub session_failures: Counter,
    /// Connections to targets.
    pub connections: AgentConnections,
    /// Bytes of those connections.
    pub carried: Carried,
    /// Dials of targets.
    pub dials: Dials,
    /// Expiry of `ca` and `agent`.
    pub certificates: Certificates,
}

impl AgentMetrics {
    /// Registers the metrics of an agent.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("culvert_agent");
        register_build(registry);
        Self {
            // In the order in which they are shown.
            connections: AgentConnections::register(registry),
            carried: Carried::register(registry),
            dials: Dials::register(registry),
            certificates: Certificates::register(registry),
            sessions: registered(registry, "sessions", "Open sessions"),
            servers: registered(
                registry,
                "servers",
                "Servers that there are, as those with a session say",
            ),
            session_failures: registered(
                registry,
                "session_failures",
                "Attempts to open a session that failed",
            ),
        }
    }

    /// Publishes the memory of connections, read at each scrape. Call it once.
    pub fn register_memory(registry: &mut Registry, read: ReadMemory) {
        registry
            .sub_registry_with_prefix("culvert_agent")
            .register_collector(Box::new(Memory(read)));
    }
}
