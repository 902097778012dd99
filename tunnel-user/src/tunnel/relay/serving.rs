//! The server that has the session: it dials for another server's client, and carries between that server and the node.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::request::{NotRelayed, RelayRequest};
use crate::{
    model::{NodeName, PeerAddr},
    observability::metrics::DialFailure,
    tunnel::{
        Client, DialError, FirstBytes,
        carry::{Backlog, Early, SessionFlow, carry, splice},
        memory::ConnectionShare,
        route::Route,
        server::{ListenerOptions, SessionConnection},
        transport::http2::{Call, OfferedStream},
    },
};

/// What waits between the two streams, in each direction.
const LANE: usize = 64 * 1024;
/// The longest that announced first bytes may take: they were there when they were announced.
const FIRST_BYTES_TIME: Duration = Duration::from_secs(5);

/// What one relaying server may ask for.
pub(in crate::tunnel) struct RelayService {
    /// The machine that it runs on, as its certificate has it.
    pub(in crate::tunnel) machine: NodeName,
    pub(in crate::tunnel) peer: PeerAddr,
    pub(in crate::tunnel) options: Arc<ListenerOptions>,
    pub(in crate::tunnel) flow: SessionFlow,
    pub(in crate::tunnel) ended: CancellationToken,
}

/// What of one connection is this server's, besides what its session counts.
struct Half {
    share: ConnectionShare,
    /// What the client has said and no dial has taken along.
    arrived: Backlog,
}

/// Serves one relayed dial, and the connection if it succeeds.
pub(in crate::tunnel) async fn serve(service: Arc<RelayService>, call: Call) {
    let request = match RelayRequest::read(call.headers(), FirstBytes::MOST) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(machine = %service.machine, peer = %service.peer, %error, "refused a relayed dial");
            return call.refuse(Status::invalid_argument(error.to_string()));
        }
    };
    let mut offer = call.into_offer();
    let dialled = tokio::select! {
        dialled = service.dial(&request, &mut offer) => dialled,
        () = service.ended.cancelled() => return,
    };
    match dialled {
        Some(Ok((connection, half))) => service.carry(&request, connection, half, offer).await,
        Some(Err(failed)) => {
            tracing::debug!(
                machine = %service.machine, destination = %request.destination, ?failed,
                "a relayed dial failed",
            );
            offer.refuse(failed.to_http());
        }
        // The other server's client has left.
        None => {}
    }
}

impl RelayService {
    /// `None` if nobody waits for it any more.
    async fn dial(
        &self,
        request: &RelayRequest,
        offer: &mut OfferedStream,
    ) -> Option<Result<(SessionConnection, Half), NotRelayed>> {
        let first = timeout(FIRST_BYTES_TIME, offer.first(request.first_bytes));
        let first = first.await.ok().flatten()?;
        tokio::select! {
            dialled = self.dial_with(request, first) => Some(dialled),
            () = offer.until_reset() => None,
        }
    }

    async fn dial_with(
        &self,
        request: &RelayRequest,
        first: Bytes,
    ) -> Result<(SessionConnection, Half), NotRelayed> {
        let ListenerOptions {
            sessions,
            memory,
            settings,
            snapshots,
            ..
        } = &*self.options;
        let route = Route::to(&request.destination, &snapshots.borrow())?;
        if !route.is_tunnelled {
            return Err(NotRelayed::Failed {
                failure: DialFailure::Denied,
                message: format!("{} is on no tunnelled port", request.destination),
            });
        }
        // Whoever its clients are, the other server is one, and cannot take the places of all others.
        let client = Client::Address(self.peer.0.ip());
        let share = memory.admit(client);
        let share = share.map_err(|refused| DialError::without_memory(refused, client))?;
        let mut first = FirstBytes::given(first);
        // No patience: the other server may have another one to ask.
        let dialling = sessions.dial(
            &route.node,
            &route.target,
            client,
            &mut first,
            Duration::ZERO,
        );
        let allowed = settings.dial_timeout;
        let dialled = timeout(allowed, dialling).await;
        let connection = dialled.map_err(|_elapsed| DialError::TimedOut(allowed))??;
        let mut arrived = Backlog::new(share.received());
        if arrived
            .push(&first.left(), share.window().max(FirstBytes::MOST as u64))
            .is_err()
        {
            return Err(DialError::OutOfMemory {
                limit: memory.most_connections(),
            }
            .into());
        }
        Ok((connection, Half { share, arrived }))
    }

    async fn carry(
        &self,
        request: &RelayRequest,
        connection: SessionConnection,
        half: Half,
        offer: OfferedStream,
    ) {
        let stream = match offer.accept() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(machine = %self.machine, %error, "cannot answer a relayed dial");
                return;
            }
        };
        self.options.metrics.relay.answered.inc();
        let (lanes, _memory) = half.share.read_of(2 * LANE);
        let (to_session, to_link) = splice(lanes / 2);
        let abort = &self.ended;
        let early = Early::Arrived(half.arrived);
        let (of_node, of_client) = tokio::join!(
            connection.carry(to_session, abort.clone()),
            carry(
                to_link,
                stream,
                early,
                &self.flow,
                &half.share,
                abort.clone()
            ),
        );
        tracing::debug!(
            machine = %self.machine, destination = %request.destination,
            to_node = of_node.from_socket, to_client = of_node.to_socket,
            end = ?of_node.end, link_end = ?of_client.end, "relayed connection ended",
        );
    }
}
