//! The agent port: TLS for whoever got through the [door](super::door), then one task per caller.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use prometheus_client::metrics::counter::Counter;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_rustls::{StartHandshake, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Sessions, UnaryService,
    arriving::tell,
    caller::{self, Caller},
    door::{Arrived, Door, source},
    peer_identity::Proved,
    preauth::PreAuthLimiter,
};
use crate::{
    model::{PeerAddr, SnapshotReader, printable},
    observability::metrics::{Carried, RelayMetrics},
    pki::{AgentProof, UnprovedIdentity},
    strangers::{Permit, within},
    tunnel::{
        Memory, RelayCallers, Settings,
        carry::ByteCounters,
        transport::http2::{ReadAhead, Segments, SharedSocket},
    },
};

/// The longest that the rest of a TLS handshake may take. As many as there are places for share the processors, so a
/// busy server takes seconds; whoever keeps *it* waiting can be replaced earlier.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// What the agent port needs.
pub struct ListenerOptions {
    /// The server's TLS configuration, replaced whole when a certificate is.
    pub tls: watch::Receiver<Arc<ServerConfig>>,
    /// Limits of each session.
    pub settings: Settings,
    /// What the connections of all sessions may hold.
    pub memory: Memory,
    /// Tells servers apart; told to agents.
    pub server_id: String,
    /// Which certificates prove an agent.
    pub proof: AgentProof,
    /// How many servers there are; told to agents, again whenever it is sent anew.
    pub server_count: watch::Receiver<u32>,
    /// Where sessions are kept.
    pub sessions: Sessions,
    /// Who may register.
    pub snapshots: SnapshotReader,
    /// Servers that have connections relayed here.
    pub relay_callers: RelayCallers,
    /// Enrolment and renewal.
    pub unary: UnaryService,
    /// What to count.
    pub metrics: TunnelMetrics,
}

/// What the server's end of the tunnel counts.
#[derive(Clone)]
pub struct TunnelMetrics {
    /// Bytes of all connections.
    pub carried: Carried,
    /// Agents that were not let in.
    pub sessions_refused: Counter,
    /// Connections relayed, and the bytes of those of others.
    pub relay: RelayMetrics,
}

/// Accepts agents.
pub struct AgentListener {
    listener: TcpListener,
    options: Arc<ListenerOptions>,
}

impl TunnelMetrics {
    pub(super) fn counters(&self) -> ByteCounters {
        ByteCounters::new(
            self.carried.to_target.clone(),
            self.carried.to_client.clone(),
        )
    }
}

impl AgentListener {
    /// Serves agents on a listening socket.
    pub fn new(listener: TcpListener, options: ListenerOptions) -> Self {
        Self {
            listener,
            options: Arc::new(options),
        }
    }

    /// Accepts while `accepting` says so, and serves what it has until `shutdown` ends every
    /// session.
    ///
    /// # Errors
    /// When the listening socket cannot be watched.
    pub async fn run(
        self,
        accepting: watch::Receiver<bool>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let callers = TaskTracker::new();
        let limiter = PreAuthLimiter::default();
        let (arrived_tx, mut arrived_rx) = mpsc::channel(limiter.handshakes());
        let door = Door {
            listener: self.listener,
            limiter: limiter.clone(),
            accepting,
            arrived_tx,
        };
        // The door's thread ends with this future, however that ends.
        let end = shutdown.child_token();
        let _end = end.clone().drop_guard();
        let shaking = async {
            while let Some(arrived) = arrived_rx.recv().await {
                let (options, ended) = (Arc::clone(&self.options), shutdown.child_token());
                let limiter = limiter.clone();
                // Boxed: what only the handshake needs goes with it, and is not kept by every session.
                let arriving = Box::pin(async move {
                    let shaken = shake_hands(arrived, &options, &limiter).await;
                    shaken.map(|(stream, caller, permit)| {
                        let segments =
                            Segments::of(stream.get_ref().0.socket().share(), &options.settings);
                        Box::pin(caller::serve(
                            stream, segments, caller, permit, options, ended,
                        ))
                    })
                });
                callers.spawn(async move {
                    if let Some(serving) = arriving.await {
                        serving.await;
                    }
                });
            }
        };
        let (door, ()) = tokio::join!(door.run(end), shaking);
        callers.close();
        callers.wait().await;
        door
    }
}

/// The handshake itself; its end is told where it fails.
async fn shake_hands(
    arrived: Arrived,
    options: &ListenerOptions,
    limiter: &PreAuthLimiter,
) -> Option<(Box<TlsStream<ReadAhead>>, Caller, Permit)> {
    let Arrived {
        peer,
        hello,
        socket,
        permit,
    } = arrived;
    let tls = Arc::clone(&options.tls.borrow());
    let shaken = async {
        let socket = socket.try_map(|socket| TcpStream::from_std(socket).map(SharedSocket::new))?;
        let hello = StartHandshake::from_parts(hello, socket);
        within(HANDSHAKE_TIME, &permit, hello.into_stream(tls)).await
    };
    let stream = match shaken.await {
        Ok(stream) => stream,
        Err(left) => {
            tell(peer, &left);
            return None;
        }
    };
    let caller = match Caller::new(peer, &stream, options.proof) {
        Ok(caller) => caller,
        Err(error) => {
            let error = printable(&error.to_string());
            tracing::warn!(%peer, error, "refused a certificate that proves neither an agent nor a server");
            return None;
        }
    };
    let permit = match &caller.proved {
        Some(proved) => limiter.authenticated(proved.node().clone()),
        None => limiter.enrolling(source(peer)),
    };
    Some((Box::new(stream), caller, permit))
}

impl Caller {
    fn new(
        peer: PeerAddr,
        stream: &TlsStream<ReadAhead>,
        proof: AgentProof,
    ) -> Result<Self, UnprovedIdentity> {
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(<[_]>::first);
        Ok(Self {
            peer,
            proved: certificate
                .map(|certificate| Proved::by(certificate, proof))
                .transpose()?,
            certificate: certificate.cloned().map(CertificateDer::into_owned),
        })
    }
}
