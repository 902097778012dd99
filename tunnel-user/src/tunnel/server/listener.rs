//! The agent port: TCP and TLS for everyone, then one task per caller.

use std::{fmt::Display, future::Future, io, sync::Arc, time::Duration};

use prometheus_client::metrics::counter::Counter;
use rustls::{ServerConfig, server::Acceptor};
use rustls_pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Sessions, UnaryService,
    caller::{self, Caller},
    preauth::{Permit, PreAuthLimiter, Source},
    proved::Proved,
};
use crate::{
    model::{PeerAddr, SnapshotReader, printable},
    observability::metrics::Carried,
    pki::{AgentProof, UnprovedIdentity},
    tunnel::{Memory, Settings, carry::Meter, http2::ReadAhead},
};

/// The longest wait for what a caller says first. An agent says it with the packet that connects, or
/// in the next one.
const HELLO_TIME: Duration = Duration::from_secs(3);
/// The longest that the rest of a TLS handshake may take, and the wait for a place to begin it. As many as there are
/// places share the processors, so a busy server takes seconds; whoever keeps *it* waiting can be replaced earlier.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// The pause after a failed accept: usually the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    pub(super) memory: Memory,
    pub(super) proof: AgentProof,
    pub(super) server_id: String,
    pub(super) server_count: watch::Receiver<u32>,
    pub(super) sessions: Sessions,
    pub(super) snapshots: SnapshotReader,
    pub(super) unary: UnaryService,
    pub(super) metrics: TunnelMetrics,
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
            memory,
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
            memory,
            proof,
            server_id,
            server_count,
            sessions,
            snapshots,
            unary,
            metrics,
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
        let limiter = PreAuthLimiter::default();
        loop {
            let accepts = *accepting.borrow_and_update();
            let accepted = tokio::select! {
                accepted = self.accept(&limiter), if accepts => accepted,
                changed = accepting.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
                () = shutdown.cancelled() => break,
            };
            let Some((stream, peer, permit)) = accepted else {
                continue;
            };
            let tls = Arc::clone(&self.tls.borrow());
            let (shared, ended) = (Arc::clone(&self.shared), shutdown.child_token());
            let limiter = limiter.clone();
            // Boxed: what only the handshake needs goes with it, and is not kept by every session.
            let arriving = Box::pin(async move {
                let arriving = Arriving {
                    peer,
                    shared: &shared,
                    limiter: &limiter,
                };
                let shaken = arriving.shake_hands(stream, tls, permit).await;
                shaken.map(|(stream, caller, permit)| {
                    Box::pin(caller::serve(stream, caller, permit, shared, ended))
                })
            });
            callers.spawn(async move {
                if let Some(serving) = arriving.await {
                    serving.await;
                }
            });
        }
        drop(self.listener);
        callers.close();
        callers.wait().await;
    }

    async fn accept(&self, limiter: &PreAuthLimiter) -> Option<(TcpStream, PeerAddr, Permit)> {
        limiter.room().await;
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                let peer = PeerAddr::of(peer);
                Some((stream, peer, limiter.connecting(Source::of(peer.0.ip()))))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept agents");
                sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// A caller on its way through TLS.
struct Arriving<'a> {
    peer: PeerAddr,
    shared: &'a Shared,
    limiter: &'a PreAuthLimiter,
}

impl Arriving<'_> {
    async fn shake_hands(
        &self,
        stream: TcpStream,
        tls: Arc<ServerConfig>,
        permit: Permit,
    ) -> Option<(Box<TlsStream<ReadAhead>>, Caller, Permit)> {
        let peer = self.peer;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot disable Nagle's algorithm");
        }
        let source = Source::of(peer.0.ip());
        let hello = LazyConfigAcceptor::new(Acceptor::default(), ReadAhead::new(stream));
        let start = self.within(HELLO_TIME, &permit, hello).await?;
        // To answer costs time on the processor: those whose turn it is are served to the end.
        let shaking = timeout(HANDSHAKE_TIME, self.limiter.handshaking(source)).await;
        let Ok(shaking) = shaking else {
            self.tell(&"this server is too busy");
            return None;
        };
        drop(permit);
        let stream = self
            .within(HANDSHAKE_TIME, &shaking, start.into_stream(tls))
            .await?;
        let caller = match Caller::new(peer, &stream, self.shared.proof) {
            Ok(caller) => caller,
            Err(error) => {
                let error = printable(&error.to_string());
                tracing::warn!(%peer, error, "refused a certificate that proves no agent");
                return None;
            }
        };
        let permit = match &caller.proved {
            Some(proved) => self.limiter.authenticated(proved.identity.node.clone()),
            None => self.limiter.enrolling(source),
        };
        Some((Box::new(stream), caller, permit))
    }

    /// One stage of the handshake, unless it takes too long or another caller needs the place.
    async fn within<T>(
        &self,
        time: Duration,
        permit: &Permit,
        stage: impl Future<Output = io::Result<T>>,
    ) -> Option<T> {
        let done = tokio::select! {
            done = timeout(time, permit.with_peer(stage)) => done,
            () = permit.evicted() => {
                self.tell(&"it made room for other callers");
                return None;
            }
        };
        match done {
            Ok(Ok(done)) => return Some(done),
            // An agent of ours, perhaps, and not to be lost among those who say anything.
            Ok(Err(error)) if is_about_certificate(&error) => {
                let error = printable(&error.to_string());
                tracing::info!(peer = %self.peer, error, "TLS handshake failed: the certificate");
            }
            Ok(Err(error)) => self.tell(&error),
            Err(_elapsed) => self.tell(&"it took too long"),
        }
        None
    }

    fn tell(&self, error: &dyn Display) {
        let error = printable(&error.to_string());
        tracing::info!(peer = %self.peer, error, "TLS handshake failed");
    }
}

/// Whether the caller showed a certificate that does not count.
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
