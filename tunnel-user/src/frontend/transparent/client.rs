//! One redirected client.

use std::sync::Arc;

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;

use super::TransparentOptions;
use crate::{
    model::{ARRIVED, Family, OriginalDst, PeerAddr, is_probe_target},
    observability::metrics::{Frontend, OpenConnection, Outcome},
    tunnel::{self, Destination, DialledBy, FirstBytes, reset, server::Connection, until_reset},
};

/// A client from accept to close.
pub(super) struct Client {
    stream: TcpStream,
    peer: PeerAddr,
    accepted: Instant,
    options: Arc<TransparentOptions>,
}

impl Client {
    pub(super) fn new(stream: TcpStream, peer: PeerAddr, options: Arc<TransparentOptions>) -> Self {
        Self {
            stream,
            peer,
            accepted: Instant::now(),
            options,
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
        if !self.options.clients.admit(self.peer) {
            tracing::debug!(peer = %self.peer, "closed a client that is in none of --clients");
            self.options.metrics.clients_refused.inc();
            reset(&self.stream);
            return;
        }
        self.options.arrivals.count(Family::of(original_dst.0.ip()));
        let counted = self.options.metrics.connections.open(Frontend::Transparent);
        let destination = Destination::Address(original_dst);
        let first = FirstBytes::of(&self.stream);
        let dialled = tokio::select! {
            dialled = self.options.dialer.dial(&destination, self.dialled_by(), first) => {
                dialled.map_err(|_told| Outcome::DialFailed)
            }
            _ = until_reset(&self.stream) => Err(Outcome::Reset),
            () = abort.cancelled() => Err(Outcome::Drained),
        };
        match dialled {
            Ok(connection) => self.carry(original_dst, connection, counted, abort).await,
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
        let found = self.options.original_dsts.of(&self.stream);
        if !matches!(found, Ok(Some(_))) {
            self.options.metrics.without_original_dst.inc();
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

    fn dialled_by(&self) -> DialledBy {
        let client = if self.options.clients.is_this_machine(self.peer) {
            tunnel::Client::Machine
        } else {
            tunnel::Client::Address(self.peer.0.ip())
        };
        DialledBy {
            client,
            peer: self.peer,
        }
    }

    async fn carry(
        self,
        original_dst: OriginalDst,
        connection: Connection,
        counted: OpenConnection,
        abort: CancellationToken,
    ) {
        let node = connection.node().clone();
        let transfer = connection.carry(self.stream, abort).await;
        tracing::debug!(
            %node, target_address = %original_dst, peer = %self.peer,
            to_node = transfer.from_socket, to_client = transfer.to_socket,
            duration = ?self.accepted.elapsed(), end = ?transfer.end, "connection ended",
        );
        counted.end(Outcome::from(&transfer));
    }
}
