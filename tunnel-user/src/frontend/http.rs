//! The HTTP frontend: a reverse proxy for clients that name a node in `Host`, or in Yurt-Tunnel's headers.
//!
//! ```text
//!  client --request--> Route --node, port--> Upstreams --Dialer--> target
//!         <--answer, or a Status that says why not--
//! ```
//! Nothing is kept of a message: bytes go on as they come, both ways. Whoever may not use the port, or asks for what
//! is not open to HTTP, gets no connection to a node.
//!
//! A connection that is waited for holds a task and what it has sent of a head. A request under way holds at most a
//! buffer of `HEAD_SIZE` bytes in each direction at each of its two ends, besides what its connection through the
//! tunnel draws from the process's budget.

mod allowed;
mod body;
mod client_io;
mod connection;
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
mod visit;

use std::{collections::BTreeMap, io, net::TcpListener, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::allowed::AllowedSources;
use self::{
    client_io::OnUnread,
    proxy::Line,
    refusal::Refusal,
    upstream::Upstreams,
    visit::{Active, Visit},
};
use super::{
    Stops,
    accept::{Acceptor, Accepts, Listeners},
};
use crate::{
    model::{PeerAddr, SnapshotReader},
    observability::metrics::{Connections, Frontend, HttpRequests, RequestsUnderWay},
    strangers::{ClientLimiter, share_of_descriptors},
    tunnel::Dialer,
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

/// What all connections share.
struct Shared {
    allowed: AllowedSources,
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
        let shared = Arc::new(Shared::new(options, &stops.abort));
        let clients = TaskTracker::new();
        let accepts = Accepts {
            room: || shared.limiter.room(),
            heartbeat: || {},
            take: |(), socket, peer| {
                let present = shared.limiter.arrive();
                let (peer, shared) = (PeerAddr::of(peer), Arc::clone(&shared));
                let serving = connection::serve(socket, peer, shared, stops.clone());
                clients.spawn(async move {
                    serving.await;
                    drop(present);
                });
            },
        };
        tokio::select! {
            () = acceptor.run(&stops, accepts) => {}
            () = shared.sweep() => {}
        }
        clients.close();
        clients.wait().await;
        shared.upstreams.end().await;
    }
}

impl Shared {
    fn new(options: HttpOptions, abort: &CancellationToken) -> Self {
        let places = share_of_descriptors(SHARE).clamp(4, MOST);
        Self {
            allowed: options.allowed,
            guards_loopback_ports: options.guards_loopback_ports,
            snapshots: options.snapshots,
            upstreams: Upstreams::new(options.dialer, abort.child_token()),
            // Besides those that wait and those that are answered, some that are about to be closed.
            limiter: ClientLimiter::new(places, places * 5 / 2),
            active: Active::new(u32::try_from(places).unwrap_or(u32::MAX)),
            connections: options.connections,
            requests: options.requests,
            under_way: options.under_way,
        }
    }

    /// Lets go of idle connections to nodes, for ever.
    async fn sweep(&self) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            sweep.tick().await;
            self.upstreams.let_go();
        }
    }

    fn admit(&self, visit: &Visit) -> Result<(), Refusal> {
        let ip = visit.peer.0.ip().to_canonical();
        let is_allowed = self.allowed.admit(visit.peer);
        is_allowed
            .then_some(())
            .ok_or(Refusal::SourceNotAllowed(ip))
    }

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
