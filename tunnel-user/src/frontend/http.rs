//! The HTTP frontend: a reverse proxy for clients that name a node in `Host`, or in Yurt-Tunnel's headers.
//!
//! ```text
//!  client --request--> Route --node, port--> Upstreams --Dialer--> target
//!         <--answer, or a Status that says why not--
//! ```
//! Nothing is kept of a message: bytes go on as they come, both ways. Whoever may not use the port, or asks for what
//! is not open to HTTP, gets no connection to a node.
//!
//! The same proxy answers clients of the HTTPS port whose TLS ends here (`ReverseProxy`): their `entrance` is
//! another, and TLS is spoken with targets too.
//!
//! A connection that is waited for holds a task and what it has sent of a head. A request under way holds at most a
//! buffer of `HEAD_SIZE` bytes in each direction at each of its two ends, besides what its connection through the
//! tunnel draws from the process's budget.

mod access;
mod allowed;
mod asked;
mod audit;
mod body;
mod client_io;
mod connection;
mod entrance;
mod head_clock;
mod headers;
mod idle;
mod proxy;
mod refusal;
mod route;
#[cfg(test)]
mod tests;
mod upgrade;
mod upstream;
mod users;
mod visit;

use std::{collections::BTreeMap, io, net::TcpListener, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(super) use self::{access::Proof, connection::Arrived};
pub use self::{allowed::AllowedSources, upstream::TargetTls};
use self::{
    client_io::OnUnread,
    entrance::Entrance,
    proxy::Line,
    refusal::Refusal,
    upstream::{Transport, Upstreams},
    users::Users,
    visit::Active,
};
use super::{
    OwnAddresses, Stops,
    accept::{Acceptor, Accepts, Listeners},
};
use crate::{
    model::{PeerAddr, Reviews, SnapshotReader},
    observability::metrics::{Connections, Frontend, HttpRequests, RequestsUnderWay},
    strangers::{ClientLimiter, Present, share_of_descriptors},
    tunnel::{Dialer, SharedSocket},
};

/// The longest head, of requests and of answers; also what hyper buffers in one direction.
const HEAD_SIZE: usize = 32 * 1024;
/// The most header fields.
const HEAD_FIELDS: usize = 100;
/// The most connections that are waited for, and the most requests under way; fewer where the process may have few
/// descriptors.
const MOST: usize = 2048;
/// The share of all descriptors that each of the two may take: one in this many.
const SHARE: u64 = 8;
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// What the frontend needs.
pub struct HttpOptions {
    /// Who may use it.
    pub allowed: AllowedSources,
    /// How it answers.
    pub proxy: ProxyOptions,
}

/// What a proxy for users of the cluster needs.
pub struct UsersOptions {
    /// Tells who is of this machine.
    pub own_addresses: OwnAddresses,
    /// Says who they are, and what they may.
    pub reviews: Arc<dyn Reviews>,
    /// How targets are spoken with.
    pub targets: TargetTls,
    /// The port at which they arrive.
    pub own_port: u16,
    /// How they are answered.
    pub proxy: ProxyOptions,
}

/// What every proxy needs.
pub struct ProxyOptions {
    /// Whether ports that lead to a node's loopback are for this machine's own processes.
    pub guards_loopback_ports: bool,
    /// Which nodes and ports there are.
    pub snapshots: SnapshotReader,
    /// Reaches nodes.
    pub dialer: Dialer,
    /// Counts clients.
    pub connections: Connections,
    /// Counts requests.
    pub requests: HttpRequests,
    /// Counts those that are being answered.
    pub under_way: RequestsUnderWay,
}

/// Accepts clients that speak HTTP.
pub struct HttpFrontend {
    acceptor: Acceptor<(), Arc<TcpListener>>,
    options: HttpOptions,
}

/// Answers the requests of clients that somebody else has accepted.
pub(super) struct ReverseProxy(Arc<Shared>);

/// What all connections share.
struct Shared {
    entrance: Entrance,
    guards_loopback_ports: bool,
    snapshots: SnapshotReader,
    upstreams: Upstreams,
    limiter: ClientLimiter,
    active: Active,
    connections: Connections,
    requests: HttpRequests,
    under_way: RequestsUnderWay,
}

impl HttpFrontend {
    /// Serves clients on a listening socket.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn new(listener: TcpListener, options: HttpOptions) -> io::Result<Self> {
        let listening = watch::Sender::new(BTreeMap::from([((), Arc::new(listener))]));
        let listeners = Listeners::new(listening.subscribe(), Duration::ZERO)?;
        Ok(Self {
            acceptor: Acceptor::new(Frontend::Http, listeners, None),
            options,
        })
    }

    /// Accepts until it is told to stop, then answers what is under way.
    pub async fn run(self, stops: Stops) {
        let Self { acceptor, options } = self;
        let HttpOptions { allowed, proxy } = options;
        let upstreams = Upstreams::new(proxy.dialer.clone(), Transport::Plain, &stops.abort);
        let proxy = ReverseProxy::new(Entrance::Sources(allowed), proxy, upstreams, MOST);
        let clients = TaskTracker::new();
        let accepts = Accepts {
            room: || proxy.0.limiter.room(),
            heartbeat: || {},
            take: |(), socket, peer| {
                let present = proxy.0.limiter.arrive();
                let stream = SharedSocket::new(socket);
                let serving = proxy.serve(
                    Arrived {
                        socket: stream.share(),
                        stream,
                        peer: PeerAddr::of(peer),
                        proof: Proof::None,
                    },
                    stops.clone(),
                );
                clients.spawn(async move {
                    serving.await;
                    drop(present);
                });
            },
        };
        tokio::select! {
            () = acceptor.run(&stops, accepts) => {}
            () = proxy.sweep() => {}
        }
        clients.close();
        clients.wait().await;
        proxy.end().await;
    }
}

impl ReverseProxy {
    /// For clients that say who they are. `most` of them wait for a head at a time, and as many for an answer.
    pub(super) fn for_users(options: UsersOptions, most: usize, abort: &CancellationToken) -> Self {
        let UsersOptions {
            own_addresses,
            reviews,
            targets,
            own_port,
            proxy,
        } = options;
        let users = Users::new(own_addresses, reviews, own_port);
        let upstreams = Upstreams::new(proxy.dialer.clone(), Transport::Tls(targets), abort);
        Self::new(Entrance::Users(Box::new(users)), proxy, upstreams, most)
    }

    fn new(entrance: Entrance, options: ProxyOptions, upstreams: Upstreams, most: usize) -> Self {
        let places = share_of_descriptors(SHARE).clamp(4, most);
        Self(Arc::new(Shared {
            entrance,
            guards_loopback_ports: options.guards_loopback_ports,
            snapshots: options.snapshots,
            upstreams,
            // Besides those that wait and those that are answered, some that are about to be closed.
            limiter: ClientLimiter::new(places, places * 5 / 2),
            active: Active::new(u32::try_from(places).unwrap_or(u32::MAX)),
            connections: options.connections,
            requests: options.requests,
            under_way: options.under_way,
        }))
    }

    /// Counts one more client, if there is room for it.
    pub(super) fn room(&self) -> Option<Present> {
        self.0.limiter.arrive_if_there_is_room()
    }

    /// Serves a client until it closes or a limit is reached.
    pub(super) fn serve<S>(
        &self,
        arrived: Arrived<S>,
        stops: Stops,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection::serve(arrived, Arc::clone(&self.0), stops)
    }

    /// Lets go of idle connections to nodes, for ever.
    pub(super) async fn sweep(&self) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            sweep.tick().await;
            self.0.upstreams.let_go();
        }
    }

    /// Ends the connections to nodes, now that no client is left.
    pub(super) async fn end(&self) {
        self.0.upstreams.end().await;
    }
}

impl Shared {
    /// Counts and logs bytes that are no HTTP request.
    fn on_unread(self: Arc<Self>, peer: PeerAddr) -> OnUnread {
        Arc::new(move |refusal| {
            self.requests.count(refusal.code(), refusal.reason());
            tell(refusal, peer, None);
        })
    }
}

fn tell(refusal: &Refusal, peer: PeerAddr, request: Option<&Line>) {
    if !refusal.is_logged() {
        let request = request.map(tracing::field::display);
        // Counted apart by the log limiter.
        let about = refusal.reason().as_str();
        tracing::info!(%peer, request, about, cause = %refusal, "request refused");
    }
}
