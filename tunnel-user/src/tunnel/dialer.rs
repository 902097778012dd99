//! The way of every frontend to a node: from an address or a name to a connection, or to a clear cause.
//!
//! ```text
//!  frontend --Destination--> Dialer --node, target--> Sessions --> the node's newest session --> agent
//!           <------------ Connection, or DialError, counted and logged ------------
//! ```
//! Whoever drops a dial takes it back at the agent as well. A dial that failed has sent nothing twice.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Client, DialError, FirstBytes,
    answer::dial_failure,
    server::{Connection, Sessions},
};
use crate::{
    model::{NodeName, OriginalDst, PeerAddr, SnapshotReader, Target},
    observability::metrics::{DialFailure, Dials},
};

/// Dials nodes. Clones are the same.
#[derive(Clone)]
pub struct Dialer(Arc<DialerOptions>);

/// What a dialer needs.
pub struct DialerOptions {
    /// Which node has which address.
    pub snapshots: SnapshotReader,
    /// Which node has a session.
    pub sessions: Sessions,
    /// The longest that a dial may take.
    pub timeout: Duration,
    /// Until then a node without a session is waited for: agents are still coming along.
    pub patient_until: Instant,
    /// Hears of each dial whose node has no session.
    pub on_no_session: Arc<dyn Fn(&NodeName) + Send + Sync>,
    /// Counts dials.
    pub metrics: Dials,
}

/// Where a client wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To whichever node has this address.
    Address(OriginalDst),
    /// To this node, on this port of the first of its addresses.
    Node(NodeName, u16),
}

/// Who dials: its connection is counted for `client`, and the log names `peer`.
#[derive(Clone, Copy, Debug)]
pub struct DialledBy {
    /// Whose places it takes.
    pub client: Client,
    /// Where it comes from.
    pub peer: PeerAddr,
}

/// Which agent dials what.
struct Route {
    node: NodeName,
    target: Target,
}

impl Dialer {
    /// A dialer over these sessions.
    pub fn new(options: DialerOptions) -> Self {
        Self(Arc::new(options))
    }

    /// Reaches the destination, with what its client has said by then. Every failure is counted, and logged with its
    /// cause.
    ///
    /// # Errors
    /// When no node has that address or name, it has no session, its agent cannot reach the target, or time runs out.
    pub async fn dial(
        &self,
        destination: &Destination,
        by: DialledBy,
        mut first: FirstBytes<'_>,
    ) -> Result<Connection, DialError> {
        let started = Instant::now();
        let route = self.route(destination);
        let dialled = match &route {
            Ok(route) => self.follow(route, by.client, &mut first).await,
            Err(error) => Err(error.clone()),
        };
        let duration = started.elapsed();
        match &dialled {
            Ok(_) => self.0.metrics.succeeded(duration),
            Err(cause) => {
                let node = route.as_ref().ok().map(|route| &route.node);
                self.failed(cause);
                tracing::info!(
                    node = node.map(tracing::field::display), target_address = %destination,
                    peer = %by.peer, %cause, ?duration, "connection refused to the client",
                );
            }
        }
        dialled
    }

    fn route(&self, destination: &Destination) -> Result<Route, DialError> {
        let snapshot = self.0.snapshots.borrow();
        let (node, dst) = match destination {
            Destination::Address(dst) => {
                let owner = snapshot.owner(dst.0.ip());
                (owner.ok_or(DialError::UnknownAddress(dst.0.ip()))?, *dst)
            }
            Destination::Node(name, port) => {
                let unknown = || DialError::UnknownNode(name.clone());
                let node = snapshot.node(name).ok_or_else(unknown)?;
                let address = *node.addresses.first().ok_or_else(unknown)?;
                (node, OriginalDst((address, *port).into()))
            }
        };
        Ok(Route {
            node: node.name.clone(),
            target: snapshot.target(dst),
        })
    }

    async fn follow(
        &self,
        route: &Route,
        client: Client,
        first: &mut FirstBytes<'_>,
    ) -> Result<Connection, DialError> {
        let DialerOptions {
            sessions,
            timeout,
            patient_until,
            ..
        } = &*self.0;
        let Route { node, target } = route;
        let patience = patient_until.saturating_duration_since(Instant::now());
        sessions
            .dial(node, target, client, first, *timeout, patience)
            .await
    }

    fn failed(&self, cause: &DialError) {
        self.0.metrics.failed(failure(cause));
        if let DialError::NoSession(node) = cause {
            (self.0.on_no_session)(node);
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(dst) => dst.fmt(f),
            Self::Node(node, port) => write!(f, "{node}:{port}"),
        }
    }
}

fn failure(error: &DialError) -> DialFailure {
    match error {
        DialError::UnknownAddress(_) | DialError::UnknownNode(_) => DialFailure::UnknownNode,
        DialError::NoSession(_) => DialFailure::NoSession,
        DialError::SessionFull { .. } => DialFailure::SessionFull,
        DialError::ClientFull { .. } | DialError::ClientOutOfMemory { .. } => {
            DialFailure::ClientFull
        }
        DialError::OutOfMemory { .. } => DialFailure::Exhausted,
        DialError::SessionEnded(_) => DialFailure::SessionLost,
        DialError::TimedOut(_) => DialFailure::TimedOut,
        DialError::Refused(answer) => dial_failure(answer),
    }
}
