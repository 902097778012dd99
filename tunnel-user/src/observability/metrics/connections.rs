//! How many connections are open, how they ended, and the bytes they carried.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry},
};

use super::labels::{
    ByDirection, ByFrontend, ByFrontendAndOutcome, ByOutcome, Direction, Frontend, Outcome,
};

/// Counts a server's connections, by the frontend that they came in through.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    open: Family<ByFrontend, Gauge>,
    ended: Family<ByFrontendAndOutcome, Counter>,
}

/// Counts an agent's connections. It does not know the frontend.
#[derive(Clone, Debug, Default)]
pub struct AgentConnections {
    open: Gauge,
    open_in_session: Gauge,
    ended: Family<ByOutcome, Counter>,
}

/// One open connection: counted as open until it is dropped, then by its outcome.
#[derive(Debug)]
#[must_use = "the connection counts as open only as long as this lives"]
pub struct OpenConnection {
    open: Gauge,
    open_in_session: Option<Gauge>,
    ended: Ended,
    outcome: Outcome,
}

#[derive(Debug)]
enum Ended {
    OfServer(Family<ByFrontendAndOutcome, Counter>, Frontend),
    OfAgent(Family<ByOutcome, Counter>),
}

/// Bytes carried, as plain counters.
#[derive(Clone, Debug)]
pub struct Carried {
    /// From clients to targets.
    pub to_target: Counter,
    /// From targets to clients.
    pub to_client: Counter,
}

impl Connections {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let connections = Self::default();
        register(
            registry,
            connections.open.clone(),
            connections.ended.clone(),
        );
        connections
    }

    /// Counts a connection as open.
    pub fn open(&self, frontend: Frontend) -> OpenConnection {
        let open = self.open.get_or_create_owned(&ByFrontend { frontend });
        OpenConnection::new(open, Ended::OfServer(self.ended.clone(), frontend))
    }
}

impl AgentConnections {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let connections = Self::default();
        register(
            registry,
            connections.open.clone(),
            connections.ended.clone(),
        );
        connections
    }

    /// The same counts, and beside them one of a new session's own connections.
    #[must_use]
    pub fn of_session(&self) -> Self {
        Self {
            open_in_session: Gauge::default(),
            ..self.clone()
        }
    }

    /// Counts a connection as open.
    pub fn open(&self) -> OpenConnection {
        let mut open = OpenConnection::new(self.open.clone(), Ended::OfAgent(self.ended.clone()));
        self.open_in_session.inc();
        open.open_in_session = Some(self.open_in_session.clone());
        open
    }

    /// How many connections of this session are open now.
    pub fn open_in_session(&self) -> u64 {
        u64::try_from(self.open_in_session.get()).unwrap_or(0)
    }
}

impl OpenConnection {
    fn new(open: Gauge, ended: Ended) -> Self {
        open.inc();
        Self {
            open,
            open_in_session: None,
            ended,
            outcome: Outcome::Abandoned,
        }
    }

    /// Ends the connection with its outcome.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let outcome = self.outcome;
        self.open.dec();
        if let Some(open_in_session) = &self.open_in_session {
            open_in_session.dec();
        }
        match &self.ended {
            Ended::OfServer(ended, frontend) => {
                let frontend = *frontend;
                let labels = ByFrontendAndOutcome { frontend, outcome };
                ended.get_or_create(&labels).inc();
            }
            Ended::OfAgent(ended) => {
                ended.get_or_create(&ByOutcome { outcome }).inc();
            }
        }
    }
}

/// Both roles show connections under the same names, each with labels of its own.
fn register(registry: &mut Registry, open: impl Metric, ended: impl Metric) {
    registry.register("connections_open", "Connections that are open", open);
    registry.register("connections", "Connections that ended", ended);
}

impl Carried {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let bytes = Family::<ByDirection, Counter>::default();
        let carried = Self {
            to_target: bytes.get_or_create_owned(&ByDirection {
                direction: Direction::ToTarget,
            }),
            to_client: bytes.get_or_create_owned(&ByDirection {
                direction: Direction::ToClient,
            }),
        };
        registry.register("carried_bytes", "Bytes carried", bytes);
        carried
    }
}
