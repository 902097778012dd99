//! A connection that a node's agent has dialled, and that waits for its client's bytes.

use std::future::Future;

use tokio_util::sync::CancellationToken;

use super::{
    carry::{LocalEnd, StreamIo, Transfer, pipe},
    relay::RelayedConnection,
    server::SessionConnection,
};
use crate::model::NodeName;

/// What of a connection waits for the part of this program that is its client, in each direction.
const LANE: usize = 16 * 1024;

/// A dialled connection, whichever way it leads to the node.
pub enum Connection {
    /// Through a session of this server.
    Direct(SessionConnection),
    /// Through another server, which has the node's session.
    Relayed(RelayedConnection),
}

impl Connection {
    /// Carries the client's bytes until both sides have closed, either is reset, or `abort` resets
    /// both.
    pub async fn carry(self, client: impl LocalEnd, abort: CancellationToken) -> Transfer {
        match self {
            Self::Direct(connection) => connection.carry(client, abort).await,
            Self::Relayed(connection) => connection.carry(client, abort).await,
        }
    }

    /// The connection as something to read and write, for a client that is in this program; it is carried as long as
    /// the future is polled.
    pub fn into_io(
        self,
        abort: CancellationToken,
    ) -> (StreamIo, impl Future<Output = Transfer> + Send) {
        let share = match &self {
            Self::Direct(connection) => connection.share(),
            Self::Relayed(connection) => connection.share(),
        };
        let (lanes, memory) = share.read_of(2 * LANE);
        let (ours, io) = pipe(lanes / 2);
        (io, async move {
            let transfer = self.carry(ours, abort).await;
            drop(memory);
            transfer
        })
    }

    /// The node at its other end.
    pub fn node(&self) -> &NodeName {
        match self {
            Self::Direct(connection) => connection.node(),
            Self::Relayed(connection) => connection.node(),
        }
    }
}

impl From<SessionConnection> for Connection {
    fn from(connection: SessionConnection) -> Self {
        Self::Direct(connection)
    }
}

impl From<RelayedConnection> for Connection {
    fn from(connection: RelayedConnection) -> Self {
        Self::Relayed(connection)
    }
}
