//! The way of every frontend to a node: from an address or a name to a connection, or to a clear cause.
//!
//! ```text
//!  frontend --Destination--> Dialer --node, target--> Sessions --> the node's newest session --> agent
//!                                   \--destination--> Relay --> another server that has one --> agent
//!           <------------ Connection, or DialError, counted and logged ------------
//! ```
//! Whoever drops a dial takes it back at the agent as well. A dial that failed has sent nothing twice.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    Client, Connection, Destination, DialError, FirstBytes, relay::Relay, route::Route,
    server::Sessions,
};
use crate::{
    model::{NodeName, PeerAddr, SnapshotReader},
    observability::metrics::Dials,
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
    /// Reaches other servers, which may have one, if there can be others.
    pub relay: Option<Relay>,
    /// The longest that a dial may take.
    pub timeout: Duration,
    /// Until then a node without a session is waited for: agents are still coming along.
    pub patient_until: Instant,
    /// Hears of each dial whose node has no session.
    pub on_no_session: Arc<dyn Fn(&NodeName) + Send + Sync>,
    /// Counts dials.
    pub metrics: Dials,
}

/// Who dials: its connection is counted for `client`, and the log names `peer`.
#[derive(Clone, Copy, Debug)]
pub struct DialledBy {
    /// Whose places it takes.
    pub client: Client,
    /// Where it comes from.
    pub peer: PeerAddr,
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
        let route = Route::to(destination, &self.0.snapshots.borrow());
        let dialled = match &route {
            Ok(route) => self.follow(route, destination, by.client, &mut first).await,
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

    async fn follow(
        &self,
        route: &Route,
        destination: &Destination,
        client: Client,
        first: &mut FirstBytes<'_>,
    ) -> Result<Connection, DialError> {
        let allowed = self.0.timeout;
        let following = self.try_follow(route, destination, client, first);
        let timed_out = |_elapsed| Err(DialError::TimedOut(allowed));
        timeout(allowed, following).await.unwrap_or_else(timed_out)
    }

    /// A session of this server first, then one of another's.
    async fn try_follow(
        &self,
        route: &Route,
        destination: &Destination,
        client: Client,
        first: &mut FirstBytes<'_>,
    ) -> Result<Connection, DialError> {
        let Route { node, target, .. } = route;
        let DialerOptions {
            sessions, relay, ..
        } = &*self.0;
        if let Some(relay) = relay.as_ref().filter(|_| !sessions.has(node)) {
            match relay.dial(node, destination, client, first).await {
                Err(DialError::NoSession(_)) => {}
                relayed => return relayed.map(Connection::from),
            }
        }
        let patience = self
            .0
            .patient_until
            .saturating_duration_since(Instant::now());
        let patience = patience.min(self.0.timeout);
        let dialled = sessions.dial(node, target, client, first, patience).await;
        dialled.map(Connection::from)
    }

    fn failed(&self, cause: &DialError) {
        self.0.metrics.failed(cause.failure());
        if let DialError::NoSession(node) = cause {
            (self.0.on_no_session)(node);
        }
    }
}
