//! One redirected client.

use std::{sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{
    model::{ARRIVED, Family, NodeName, OriginalDst, PeerAddr, Target, is_probe_target},
    observability::metrics::{DialFailure, Frontend, OpenConnection, Outcome},
    tunnel::{self, DialError, dial_failure, reset, server::Connection, until_reset},
};

/// A client from accept to close.
pub(super) struct Client {
    stream: TcpStream,
    peer: PeerAddr,
    accepted: Instant,
    shared: Arc<Shared>,
}

/// Where a client wants to go.
struct Route {
    original_dst: OriginalDst,
    node: NodeName,
    target: Target,
}

impl Client {
    pub(super) fn new(stream: TcpStream, peer: PeerAddr, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            peer,
            accepted: Instant::now(),
            shared,
        }
    }

    /// Carries the client until it and its target have closed; `abort` resets it.
    pub(super) async fn serve(self, abort: CancellationToken) {
        let Some(original_dst) = self.original_dst() else {
            return;
        };
        if is_probe_target(original_dst.0.ip()) {
            return self.answer_probe().await;
        }
        if !self.shared.clients.admit(self.peer) {
            tracing::debug!(peer = %self.peer, "closed a client that is in none of --clients");
            self.shared.metrics.clients_refused.inc();
            reset(&self.stream);
            return;
        }
        self.shared.arrivals.count(Family::of(original_dst.0.ip()));
        let counted = self.shared.metrics.connections.open(Frontend::Transparent);
        let Some(route) = self.route(original_dst) else {
            return counted.end(Outcome::DialFailed);
        };
        let dialled = tokio::select! {
            dialled = self.dial(&route) => dialled.ok_or(Outcome::DialFailed),
            _ = until_reset(&self.stream) => Err(Outcome::Reset),
            () = abort.cancelled() => Err(Outcome::Drained),
        };
        match dialled {
            Ok(connection) => self.carry(&route, connection, counted, abort).await,
            Err(outcome) => {
                reset(&self.stream);
                counted.end(outcome);
            }
        }
    }

    /// A probe that has come up to here has arrived, whichever server sent it.
    async fn answer_probe(mut self) {
        // So few bytes never wait.
        if let Err(error) = self.stream.write_all(ARRIVED).await {
            tracing::debug!(%error, "a probe has gone before its answer");
        }
    }

    fn original_dst(&self) -> Option<OriginalDst> {
        let found = self.shared.original_dsts.of(&self.stream);
        if !matches!(found, Ok(Some(_))) {
            self.shared.metrics.without_original_dst.inc();
            reset(&self.stream);
        }
        match found {
            Ok(Some(original_dst)) => return Some(original_dst),
            Ok(None) => {
                tracing::debug!(peer = %self.peer, "closed a client that was not redirected");
            }
            Err(error) => {
                tracing::warn!(peer = %self.peer, %error, "cannot read an original destination");
            }
        }
        None
    }

    fn route(&self, original_dst: OriginalDst) -> Option<Route> {
        let found = {
            let snapshot = self.shared.snapshots.borrow();
            let owner = snapshot.owner(original_dst.0.ip());
            owner.map(|node| Route {
                original_dst,
                node: node.name.clone(),
                target: snapshot.target(original_dst),
            })
        };
        if found.is_some() {
            return found;
        }
        tracing::info!(peer = %self.peer, %original_dst, "no node has this address any more");
        self.shared.metrics.dials.failed(DialFailure::UnknownNode);
        reset(&self.stream);
        None
    }

    async fn dial(&self, route: &Route) -> Option<Connection> {
        let Shared {
            sessions,
            dial_timeout,
            patient_until,
            metrics,
            ..
        } = &*self.shared;
        let started = Instant::now();
        let patience = patient_until.saturating_duration_since(started);
        match sessions
            .dial(
                &route.node,
                &route.target,
                self.client(),
                *dial_timeout,
                patience,
            )
            .await
        {
            Ok(connection) => {
                metrics.dials.succeeded(started.elapsed());
                Some(connection)
            }
            Err(error) => {
                metrics.dials.failed(failure(&error));
                if matches!(error, DialError::NoSession(_)) {
                    (self.shared.on_no_session)(&route.node);
                }
                self.log_failure(route, &error, started.elapsed());
                None
            }
        }
    }

    /// Whom the connection is counted for.
    fn client(&self) -> tunnel::Client {
        if self.shared.clients.is_this_machine(self.peer) {
            tunnel::Client::Machine
        } else {
            tunnel::Client::Address(self.peer.0.ip())
        }
    }

    fn log_failure(&self, route: &Route, cause: &DialError, duration: Duration) {
        tracing::info!(
            node = %route.node, target_address = %route.original_dst, peer = %self.peer, %cause,
            ?duration, "connection refused to the client",
        );
    }

    async fn carry(
        self,
        route: &Route,
        connection: Connection,
        counted: OpenConnection,
        abort: CancellationToken,
    ) {
        let transfer = connection.carry(self.stream, abort).await;
        tracing::debug!(
            node = %route.node, target_address = %route.original_dst, peer = %self.peer,
            to_node = transfer.from_socket, to_client = transfer.to_socket,
            duration = ?self.accepted.elapsed(), end = ?transfer.end, "connection ended",
        );
        counted.end(Outcome::from(&transfer));
    }
}

fn failure(error: &DialError) -> DialFailure {
    match error {
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
