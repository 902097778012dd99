//! The agent port: TCP and TLS for everyone, then one task per caller.

use std::{
    fmt::Display,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Sessions, UnaryService,
    caller::{self, Caller},
    lobby::{Lobby, LobbyPlace},
    proved::Proved,
    seldom::Seldom,
};
use crate::{
    model::{PeerAddr, SnapshotReader},
    observability::metrics::Carried,
    pki::{AgentProof, UnprovedIdentity},
    tunnel::{
        Settings,
        carry::Meter,
        http2::{ReadAhead, read_ahead},
    },
};

/// The longest that a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// The pause after a failed accept: usually the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the agent port needs.
pub struct ListenerOptions {
    /// The server's TLS configuration, replaced whole when a certificate is.
    pub tls: watch::Receiver<Arc<ServerConfig>>,
    /// Limits of each session.
    pub settings: Settings,
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
}

/// Accepts agents.
pub struct AgentListener {
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    shared: Arc<Shared>,
}

/// What all callers share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) proof: AgentProof,
    pub(super) server_id: String,
    pub(super) server_count: watch::Receiver<u32>,
    pub(super) sessions: Sessions,
    pub(super) snapshots: SnapshotReader,
    pub(super) unary: UnaryService,
    pub(super) metrics: TunnelMetrics,
    /// Callers that could not shake hands.
    pub(super) strangers: Seldom,
    /// Callers whose certificate does not count.
    pub(super) refused_certificates: Seldom,
    /// Callers that asked for more than enrolment.
    pub(super) uncertified: Seldom,
}

impl TunnelMetrics {
    pub(super) fn meter(&self) -> Meter {
        Meter::new(
            self.carried.to_target.clone(),
            self.carried.to_client.clone(),
        )
    }
}

impl AgentListener {
    /// Serves agents on a bound listener.
    pub fn new(listener: TcpListener, options: ListenerOptions) -> Self {
        let ListenerOptions {
            tls,
            settings,
            server_id,
            server_count,
            proof,
            sessions,
            snapshots,
            unary,
            metrics,
        } = options;
        let shared = Shared {
            settings,
            proof,
            server_id,
            server_count,
            sessions,
            snapshots,
            unary,
            metrics,
            strangers: Seldom::default(),
            refused_certificates: Seldom::default(),
            uncertified: Seldom::default(),
        };
        Self {
            listener,
            tls,
            shared: Arc::new(shared),
        }
    }

    /// Accepts while `accepting` says so, and serves what it has until `shutdown` ends every
    /// session. A server that hands over stops accepting first, and goes on if that fails.
    pub async fn run(self, mut accepting: watch::Receiver<bool>, shutdown: CancellationToken) {
        let callers = TaskTracker::new();
        let lobby = Lobby::default();
        loop {
            let accepts = *accepting.borrow_and_update();
            let accepted = tokio::select! {
                accepted = self.accept(), if accepts => accepted,
                changed = accepting.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
                () = shutdown.cancelled() => break,
            };
            let Some((stream, peer)) = accepted else {
                continue;
            };
            let acceptor = TlsAcceptor::from(Arc::clone(&self.tls.borrow()));
            let (shared, shutdown) = (Arc::clone(&self.shared), shutdown.clone());
            let place = lobby.enter();
            callers.spawn(async move {
                let shaken = shared.shake_hands(stream, peer, &acceptor, &place).await;
                if let Some((stream, caller)) = shaken {
                    caller::serve(stream, caller, place, shared, shutdown).await;
                }
            });
        }
        drop(self.listener);
        callers.close();
        callers.wait().await;
    }

    async fn accept(&self) -> Option<(TcpStream, PeerAddr)> {
        match self.listener.accept().await {
            Ok((stream, peer)) => Some((stream, PeerAddr::of(peer))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept agents");
                sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

impl Shared {
    async fn shake_hands(
        &self,
        stream: TcpStream,
        peer: PeerAddr,
        acceptor: &TlsAcceptor,
        place: &LobbyPlace,
    ) -> Option<(TlsStream<ReadAhead>, Caller)> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot disable Nagle's algorithm");
        }
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE_TIME, acceptor.accept(read_ahead(stream))) => shaken,
            () = place.taken() => {
                tell(&self.strangers, peer, &"it made room for other callers");
                return None;
            }
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let of_its_kind = if is_about_certificate(&error) {
                    &self.refused_certificates
                } else {
                    &self.strangers
                };
                tell(of_its_kind, peer, &error);
                return None;
            }
            Err(_elapsed) => {
                tell(&self.strangers, peer, &"it took too long");
                return None;
            }
        };
        match Caller::new(peer, &stream, self.proof) {
            Ok(caller) => Some((stream, caller)),
            Err(error) => {
                tracing::warn!(%peer, %error, "refused a certificate that proves no agent");
                None
            }
        }
    }
}

/// Anyone on the network can cause this message.
fn tell(of_its_kind: &Seldom, peer: PeerAddr, error: &dyn Display) {
    if let Some(left_out) = of_its_kind.pass(Instant::now()) {
        tracing::info!(%peer, %error, left_out, "TLS handshake failed");
    } else {
        tracing::debug!(%peer, %error, "TLS handshake failed");
    }
}

/// Whether the caller showed a certificate that does not count: an agent of ours, perhaps, and not
/// to be lost among those who say anything.
fn is_about_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
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
