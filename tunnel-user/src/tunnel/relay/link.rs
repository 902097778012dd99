//! A link to one other server, and the connections that it relays.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::StatusCode;
use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    RelayOptions, RelayServer,
    request::{NotRelayed, RelayRequest},
};
use crate::{
    model::NodeName,
    outgoing::{self, SegmentSize},
    tunnel::{
        Client, Destination, DialError, FirstBytes, LocalEnd, Transfer,
        carry::{ByteCounters, Early, SessionFlow, carry},
        client_io::{ClientIo, ClientIoOptions, IoEnd},
        first_bytes::Waiting,
        memory::ConnectionShare,
        places::{NoPlace, Places},
        transport::{
            Stream,
            http2::{Opener, Patience, Segments, SharedSocket},
        },
    },
};

/// The longest that another server may take from TCP to HTTP/2: it is nearby, and others may have the session.
const LINK_TIME: Duration = Duration::from_secs(2);
/// A link that has carried nothing for so long is closed: a cluster has many machines that hardly ever relay.
const IDLE: Duration = Duration::from_mins(5);

/// An open link.
pub(super) struct Link {
    server: RelayServer,
    opener: Opener,
    flow: SessionFlow,
    first_bytes_waiting: Waiting,
    usage: Mutex<Usage>,
    /// What proved this server when it was opened.
    tls: Arc<ClientConfig>,
    ended: CancellationToken,
}

/// What it is used for.
struct Usage {
    places: Places,
    last: Instant,
}

/// A connection that another server has had dialled and that waits for its client's bytes.
pub struct RelayedConnection {
    node: NodeName,
    stream: Stream,
    /// Bytes of its client that went with the dial.
    sent: u64,
    place: Place,
}

/// One of the link's places for a connection, and its share of memory.
struct Place {
    link: Arc<Link>,
    client: Client,
    share: ConnectionShare,
}

impl Link {
    /// Connects to the server, which has to prove that it is one.
    pub(super) async fn open(
        server: &RelayServer,
        options: &RelayOptions,
    ) -> anyhow::Result<(Arc<Self>, ClientIo)> {
        let address = &server.address;
        let opening = timeout(LINK_TIME, Self::try_open(server, options));
        match opening.await {
            Ok(opened) => opened,
            Err(_elapsed) => bail!("no link to server {address} within {LINK_TIME:?}"),
        }
    }

    async fn try_open(
        server: &RelayServer,
        options: &RelayOptions,
    ) -> anyhow::Result<(Arc<Self>, ClientIo)> {
        let address = &server.address;
        let Some(tls) = options.tls.borrow().clone() else {
            bail!("this server has no certificate yet by which others know it");
        };
        let server_name = match &options.server_name {
            Some(name) => name.clone(),
            None => address.server_name().clone(),
        };
        let connecting =
            outgoing::connect_any(address.host_and_port(), options.mark, SegmentSize::Full);
        let stream = connecting
            .await
            .with_context(|| format!("cannot reach server {address}"))?;
        let socket = SharedSocket::new(stream);
        let segments = Segments::of(socket.share(), &options.settings);
        let carried = &options.carried;
        let opening = ClientIo::open(
            ClientIoOptions {
                server: address,
                server_name,
                tls: Arc::clone(&tls),
                settings: &options.settings,
                memory: &options.memory,
                counters: ByteCounters::new(carried.to_target.clone(), carried.to_client.clone()),
            },
            socket,
            segments,
        );
        let (opener, io, _) = opening.await?;
        let link = Self {
            server: server.clone(),
            opener,
            flow: io.flow.clone(),
            first_bytes_waiting: Waiting::default(),
            usage: Mutex::new(Usage {
                places: Places::new(options.settings.max_connections),
                last: Instant::now(),
            }),
            tls,
            ended: CancellationToken::new(),
        };
        Ok((Arc::new(link), io))
    }

    /// Moves its bytes until it is idle, or over; what it carries then is reset.
    pub(super) async fn run(
        &self,
        mut io: ClientIo,
        options: &RelayOptions,
        end: CancellationToken,
    ) {
        let address = &self.server.address;
        tracing::info!(server = %address, id = self.server.id, "relay link opened");
        let patience = Patience::of_agent(&options.settings);
        let ended = io.drive(self.until_idle(), patience, &end, address).await;
        self.ended.cancel();
        tracing::info!(server = %address, id = self.server.id, reason = reason(ended), "relay link closed");
    }

    /// Whether something new may go through it: until it is over, or there is a newer certificate. What the other
    /// server lets an older one's connections do ends by itself.
    pub(super) fn takes_dials(&self, options: &RelayOptions) -> bool {
        let tls = options.tls.borrow();
        let is_current = tls.as_ref().is_none_or(|tls| Arc::ptr_eq(tls, &self.tls));
        is_current && !self.ended.is_cancelled()
    }

    /// Asks for a connection to the destination.
    pub(super) async fn dial(
        self: &Arc<Self>,
        node: &NodeName,
        destination: &Destination,
        client: Client,
        share: ConnectionShare,
        first: &mut FirstBytes<'_>,
    ) -> Result<Result<RelayedConnection, NotRelayed>, DialError> {
        let place = Place::take(self, node, client, share)?;
        let bytes = first
            .read(&place.share, &self.first_bytes_waiting, None)
            .await;
        let request = RelayRequest {
            destination: destination.clone(),
            first_bytes: bytes.len(),
        };
        let sent = bytes.len() as u64;
        let answer = tokio::select! {
            answer = self.ask(&request, bytes) => answer,
            () = self.ended.cancelled() => Err(self.has_gone()),
        };
        let answer = answer?;
        let (head, stream) = answer.into_parts();
        // gRPC refuses with a status of its own, and the head of a success.
        if head.status != StatusCode::OK || head.headers.contains_key("grpc-status") {
            return Ok(Err(NotRelayed::read(head.status, &head.headers)));
        }
        first.leave();
        Ok(Ok(RelayedConnection {
            node: node.clone(),
            stream,
            sent,
            place,
        }))
    }

    async fn ask(
        &self,
        request: &RelayRequest,
        first: Bytes,
    ) -> Result<http::Response<Stream>, DialError> {
        let request = request.to_http(&self.server.address);
        let asked = self.opener.clone().ask(request, first).await;
        let asked = asked.map_err(|_| self.has_gone())?;
        asked.answer().await.map_err(|_| self.has_gone())
    }

    fn has_gone(&self) -> DialError {
        DialError::LinkEnded(self.server.address.to_string().into())
    }

    async fn until_idle(&self) -> IoEnd {
        loop {
            let idle_at = self.usage().idle_at();
            if idle_at.is_some_and(|at| at <= Instant::now()) {
                return IoEnd::EndedHere;
            }
            sleep_until(idle_at.unwrap_or_else(|| Instant::now() + IDLE)).await;
        }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        // Places are counted whole between any two operations, whatever panicked meanwhile.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usage {
    /// When it has been idle for long enough; `None` while it is not idle.
    fn idle_at(&self) -> Option<Instant> {
        (self.places.taken() == 0).then(|| self.last + IDLE)
    }
}

impl RelayedConnection {
    pub(in crate::tunnel) async fn carry(
        self,
        client: impl LocalEnd,
        abort: CancellationToken,
    ) -> Transfer {
        let Place { link, share, .. } = &self.place;
        let early = Early::Sent(self.sent);
        carry(client, self.stream, early, &link.flow, share, abort).await
    }

    pub(in crate::tunnel) fn node(&self) -> &NodeName {
        &self.node
    }

    pub(in crate::tunnel) fn share(&self) -> &ConnectionShare {
        &self.place.share
    }
}

impl Place {
    fn take(
        link: &Arc<Link>,
        node: &NodeName,
        client: Client,
        share: ConnectionShare,
    ) -> Result<Self, DialError> {
        let taken = link.usage().places.take(client);
        taken.map_err(|refused| match refused {
            NoPlace::Full(limit) => DialError::SessionFull {
                node: node.clone(),
                limit,
            },
            NoPlace::ClientFull(limit) => DialError::ClientFull {
                node: node.clone(),
                client,
                limit,
            },
        })?;
        Ok(Self {
            link: Arc::clone(link),
            client,
            share,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut usage = self.link.usage();
        usage.places.leave(self.client);
        usage.last = Instant::now();
    }
}

fn reason(end: IoEnd) -> &'static str {
    match end {
        IoEnd::ClosedByServer => "closed by the server",
        IoEnd::ConnectionFailed => "connection failed",
        IoEnd::Lost(lost) => lost.as_str("the server fell silent"),
        IoEnd::EndedHere => "idle, or ended by this server",
    }
}
