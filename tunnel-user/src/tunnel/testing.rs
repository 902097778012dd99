//! What the tests of the tunnel share: a server and an agent in this process, joined by real TLS
//! over loopback, and the two ends of a carried connection.

mod agents;
mod dialling;

use std::{net::SocketAddr, slice, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use http::Response;
use prometheus_client::registry::Registry;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic::{Status, body::Body};

pub(crate) use self::{agents::TestAgent, dialling::enrolled};
use super::{
    Client, Connection, DialError, FirstBytes, Memory, RelayCallers, Settings, Transfer,
    agent::Policy,
    server::{AgentListener, ListenerOptions, Sessions, TunnelMetrics},
};
use crate::{
    model::{
        Admits, AgentIdentity, IdentityKey, Node, NodeName, PortSet, Snapshot, SnapshotWriter,
        Target,
    },
    observability::metrics::ServerMetrics,
    pki::{AgentProof, Ca, Credential, Validity, new_key, server_config},
};

/// Nothing on loopback takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const LIFE: Duration = Duration::from_hours(1);

/// A server with its CA.
pub(crate) struct TestServer {
    pub(super) address: SocketAddr,
    pub(crate) sessions: Sessions,
    pub(super) relay_callers: RelayCallers,
    pub(super) snapshots: SnapshotWriter,
    pub(super) settings: Settings,
    /// What the connections of this server may hold.
    pub(super) memory: Memory,
    proof: AgentProof,
    pub(super) metrics: ServerMetrics,
    /// What it tells agents about how many servers there are.
    pub(super) server_count: watch::Sender<u32>,
    pub(super) ca: Arc<Ca>,
    _accepting: watch::Sender<bool>,
    running: AbortOnDropHandle<()>,
    shutdown: CancellationToken,
}

/// One carried connection: the client's end, the target's end, and how the carrying ends.
pub(super) struct Carried {
    pub(super) client: TcpStream,
    pub(super) target: TcpStream,
    pub(super) carrying: AbortOnDropHandle<Transfer>,
}

pub(super) fn name(node: &str) -> NodeName {
    node.parse().unwrap()
}

/// A snapshot of these nodes, each with the key that it admits.
pub(super) fn snapshot(nodes: &[(&str, &str)]) -> Arc<Snapshot> {
    let nodes = nodes.iter().map(|(node, key)| Node {
        name: name(node),
        addresses: Vec::new(),
        extra_ports: PortSet::new(),
        closed_gate: None,
        admits: Some(Admits::Enrolment(IdentityKey::from(*key))),
    });
    Arc::new(Snapshot::new(nodes, PortSet::new()))
}

impl TestServer {
    pub(crate) async fn start(settings: Settings) -> Self {
        let ca = Ca::generate(OffsetDateTime::now_utc()).unwrap();
        Self::with_ca(Arc::new(ca), "server-1", settings, AgentProof::Enrolment).await
    }

    /// One that goes by the subjects of a cluster's certificates, and knows `edge-1`.
    pub(super) async fn in_cluster(settings: Settings) -> Self {
        let ca = Arc::new(Ca::generate(OffsetDateTime::now_utc()).unwrap());
        let server = Self::with_ca(ca, "server-1", settings, AgentProof::ClusterSubject).await;
        server.edge_1_admits(None);
        server
    }

    /// The one node that there is admits these agents from now on.
    pub(super) fn edge_1_admits(&self, admits: Option<Admits>) {
        let node = Node {
            name: name("edge-1"),
            addresses: Vec::new(),
            extra_ports: PortSet::new(),
            closed_gate: None,
            admits,
        };
        let snapshot = Snapshot::new([node], PortSet::new());
        self.snapshots.send_replace(Arc::new(snapshot));
    }

    /// Another server of the same control plane.
    pub(super) async fn beside(&self, id: &str) -> Self {
        let ca = Arc::clone(&self.ca);
        Self::with_ca(ca, id, self.settings, self.proof).await
    }

    /// One that has so much memory for connections.
    pub(super) async fn with_memory(settings: Settings, memory: Memory) -> Self {
        let ca = Arc::new(Ca::generate(OffsetDateTime::now_utc()).unwrap());
        Self::built(ca, "server-1", settings, memory, AgentProof::Enrolment).await
    }

    async fn with_ca(ca: Arc<Ca>, id: &str, settings: Settings, proof: AgentProof) -> Self {
        Self::built(ca, id, settings, plenty(settings), proof).await
    }

    async fn built(
        ca: Arc<Ca>,
        id: &str,
        settings: Settings,
        memory: Memory,
        proof: AgentProof,
    ) -> Self {
        let now = OffsetDateTime::now_utc();
        let key = new_key().unwrap();
        let leaf = ca
            .issue_server(&key, Validity::starting(now, LIFE))
            .unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let credential = Credential::new(key, vec![leaf, ca.certificate().clone()]).unwrap();
        let tls = server_config(&credential, slice::from_ref(ca.certificate())).unwrap();
        let (_, tls) = watch::channel(Arc::new(tls));
        let (snapshots, reader) = watch::channel(snapshot(&[("edge-1", "k")]));
        let metrics = ServerMetrics::register(&mut Registry::default());
        let sessions = Sessions::default();
        let relay_callers = RelayCallers::default();
        let (server_count, counts) = watch::channel(1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.into_std().unwrap();
        let listener = AgentListener::new(
            listener,
            ListenerOptions {
                tls,
                settings,
                memory: memory.clone(),
                proof,
                server_id: id.to_owned(),
                server_count: counts,
                sessions: sessions.clone(),
                snapshots: reader,
                relay_callers: relay_callers.clone(),
                unary: Arc::new(|_| Box::pin(async { unimplemented_call() })),
                metrics: TunnelMetrics {
                    carried: metrics.carried.clone(),
                    sessions_refused: metrics.sessions_refused.clone(),
                    relay: metrics.relay.clone(),
                },
            },
        );
        let (accepting, accepts) = watch::channel(true);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(listener.run(accepts, shutdown.clone()).map(Result::unwrap));
        Self {
            address,
            sessions,
            relay_callers,
            snapshots,
            settings,
            memory,
            proof,
            metrics,
            server_count,
            ca,
            _accepting: accepting,
            running: AbortOnDropHandle::new(running),
            shutdown,
        }
    }

    /// Ends every session, and is gone.
    pub(super) async fn end(self) {
        self.shutdown.cancel();
        let ended = timeout(PATIENCE, self.running).await;
        ended.expect("the server did not end").unwrap();
    }

    /// A server and an agent of `edge-1`, with a session.
    pub(crate) async fn with_agent(settings: Settings) -> (Self, TestAgent) {
        let server = Self::start(settings).await;
        let agent = server.agent("edge-1", "k", Policy::new(Vec::new(), Vec::new()));
        server.until_session("edge-1").await;
        (server, agent)
    }

    pub(super) async fn until_session(&self, node: &str) {
        self.until(|sessions| sessions.has(&name(node))).await;
    }

    pub(super) async fn until(&self, condition: impl Fn(&Sessions) -> bool) {
        let mut changes = self.sessions.changes();
        let come = async {
            while !condition(&self.sessions) {
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, come)
            .await
            .expect("sessions did not become as expected");
    }

    /// Dials `target` on `edge-1` and carries a client of this process.
    pub(super) async fn carry(
        &self,
        target: SocketAddr,
    ) -> Result<(TcpStream, AbortOnDropHandle<Transfer>), DialError> {
        let connection = self.try_dial(target, FirstBytes::default()).await?;
        let (client, accepted) = tcp_pair().await;
        let carrying = connection.carry(accepted, self.shutdown.clone());
        Ok((client, AbortOnDropHandle::new(tokio::spawn(carrying))))
    }

    /// A connection to that listener on `edge-1`, for a client that has said this.
    pub(super) async fn dial(&self, target: &TcpListener, first: FirstBytes<'_>) -> Connection {
        let target = target.local_addr().unwrap();
        self.try_dial(target, first).await.unwrap()
    }

    async fn try_dial(
        &self,
        target: SocketAddr,
        mut first: FirstBytes<'_>,
    ) -> Result<Connection, DialError> {
        let (node, target) = (name("edge-1"), Target::from(target));
        let (client, allowed) = (Client::Machine, self.settings.dial_timeout);
        let dialling = self
            .sessions
            .dial(&node, &target, client, &mut first, Duration::ZERO);
        let timed_out = |_elapsed| Err(DialError::TimedOut(allowed));
        let dialled = timeout(allowed, dialling).await.unwrap_or_else(timed_out);
        dialled.map(Connection::from)
    }

    /// A carried connection with both its ends in hand.
    pub(super) async fn carried(&self) -> Carried {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, carrying) = self.carry(listener.local_addr().unwrap()).await.unwrap();
        let (target, _) = listener.accept().await.unwrap();
        Carried {
            client,
            target,
            carrying,
        }
    }
}

/// More memory than any test needs.
fn plenty(settings: Settings) -> Memory {
    Memory::new(4 << 30, settings.first_window())
}

pub(super) fn identity(node: &str, key: &str) -> AgentIdentity {
    AgentIdentity {
        node: name(node),
        addresses: Vec::new(),
        key: IdentityKey::from(key),
    }
}

/// Two ends of a TCP connection.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (client.unwrap(), accepted.unwrap().0)
}

fn unimplemented_call() -> Response<Body> {
    Status::unimplemented("not part of this test").into_http()
}

/// Waits for tasks that a test spawned.
pub(super) async fn all(tasks: TaskTracker) {
    tasks.close();
    timeout(PATIENCE, tasks.wait())
        .await
        .expect("tasks did not end");
}
