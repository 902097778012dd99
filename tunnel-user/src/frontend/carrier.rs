//! What every frontend does with a client: lets it in or not, dials for it, carries it, counts it and tells how it
//! ended.

use prometheus_client::metrics::counter::Counter;
use tokio::{net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;

use super::ClientNetworks;
use crate::{
    model::PeerAddr,
    observability::metrics::{Connections, Frontend, OpenConnection, Outcome},
    tunnel::{Connection, Destination, Dialer, DialledBy, FirstBytes, reset, until_reset},
};

/// Carries clients to nodes.
#[derive(Clone)]
pub struct Carrier {
    /// Who may be a client.
    pub clients: ClientNetworks,
    /// Reaches nodes.
    pub dialer: Dialer,
    /// Counts clients, by how they ended.
    pub connections: Connections,
    /// Counts those that may not be clients.
    pub clients_refused: Counter,
}

/// A client that has been accepted.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: PeerAddr,
    at: Instant,
}

/// A client that could not be carried, and why.
pub(super) struct NotCarried {
    pub(super) stream: TcpStream,
    pub(super) outcome: Outcome,
}

impl Accepted {
    pub(super) fn now(stream: TcpStream, peer: PeerAddr) -> Self {
        Self {
            stream,
            peer,
            at: Instant::now(),
        }
    }
}

impl Carrier {
    /// Whether it may be a client; one that may not is reset and counted.
    pub(super) fn admit(&self, accepted: &Accepted) -> bool {
        let admitted = self.clients.admit(accepted.peer);
        if !admitted {
            tracing::debug!(peer = %accepted.peer, "closed a client that is in none of --clients");
            self.refuse(accepted);
        }
        admitted
    }

    /// Resets one that may not be a client.
    pub(super) fn refuse(&self, accepted: &Accepted) {
        self.clients_refused.inc();
        reset(&accepted.stream);
    }

    /// Carries the client until it and its target have closed; `abort` resets it.
    pub(super) async fn carry(
        &self,
        accepted: Accepted,
        destination: &Destination,
        frontend: Frontend,
        abort: CancellationToken,
    ) -> Result<(), NotCarried> {
        let counted = self.connections.open(frontend);
        let first = FirstBytes::of(&accepted.stream);
        let by = self.dialled_by(accepted.peer);
        let dialled = tokio::select! {
            dialled = self.dialer.dial(destination, by, first) => {
                dialled.map_err(|_told| Outcome::DialFailed)
            }
            _ = until_reset(&accepted.stream) => Err(Outcome::Reset),
            () = abort.cancelled() => Err(Outcome::Drained),
        };
        match dialled {
            Ok(connection) => {
                carry(accepted, destination, connection, counted, abort).await;
                Ok(())
            }
            Err(outcome) => {
                counted.end(outcome);
                Err(NotCarried {
                    stream: accepted.stream,
                    outcome,
                })
            }
        }
    }

    fn dialled_by(&self, peer: PeerAddr) -> DialledBy {
        let client = self.clients.own_addresses.client_of(peer);
        DialledBy { client, peer }
    }
}

async fn carry(
    accepted: Accepted,
    destination: &Destination,
    connection: Connection,
    counted: OpenConnection,
    abort: CancellationToken,
) {
    let Accepted { stream, peer, at } = accepted;
    let node = connection.node().clone();
    let transfer = connection.carry(stream, abort).await;
    tracing::debug!(
        %node, target_address = %destination, %peer,
        to_node = transfer.from_socket, to_client = transfer.to_socket,
        duration = ?at.elapsed(), end = ?transfer.end, "connection ended",
    );
    counted.end(Outcome::from(&transfer));
}
