//! A frontend that ends TLS for the users of a cluster, with a kubelet and another service of `edge-1` behind a real
//! tunnel, and clients of both kinds.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;
use prometheus_client::{encoding::text, registry::Registry};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    frontend::{
        Carrier, ClientNetworks, OwnAddresses, Stops,
        http::{ProxyOptions, TargetTls, UsersOptions},
        https::{ClientTls, Https, HttpsOptions, HttpsSocket, TerminationOptions},
        testing::{Wire, patiently},
    },
    model::{
        HttpsTarget, Node, NodeAccess, NodeName, PodName, ReviewError, Reviews, Snapshot,
        TunnelPort, User,
    },
    observability::metrics::ServerMetrics,
    pki::{
        Credential, client_identity, provider, server_config_requiring_certificates,
        terminating_server_config, testing::TestCa,
    },
    tunnel::{
        Dialer, Settings,
        testing::{TestAgent, TestServer, enrolled},
    },
};

/// `edge-1` has a kubelet, and an exporter on another HTTPS port; `edge-2` has no agent.
pub(super) struct Stage {
    pub(super) ca: TestCa,
    pub(super) cluster: Arc<Cluster>,
    pub(super) kubelet: Target,
    pub(super) exporter: Target,
    pub(super) own: SocketAddr,
    /// Says that a CA of clients is trusted no longer.
    pub(super) withdrawn: CancellationToken,
    metrics: Registry,
    _running: AbortOnDropHandle<()>,
    _server: TestServer,
    _agent: TestAgent,
}

/// A service of `edge-1`, and what it shows.
pub(super) struct Target {
    listener: TcpListener,
    tls: TlsAcceptor,
    pub(super) port: u16,
}

/// What the API server says: of tokens, of what users may, of pods. It can fail.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) tokens: Mutex<BTreeMap<String, User>>,
    /// `USER VERB nodes/SUBRESOURCE of node NODE`
    pub(super) granted: Mutex<Vec<String>>,
    pub(super) is_down: Mutex<bool>,
}

/// What is not as it should be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The kubelet's certificate is of another CA.
    RogueKubelet,
    /// This server has no certificate for kubelets yet.
    NoCertificate,
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::with(Fault::None).await
    }

    pub(super) async fn with(fault: Fault) -> Self {
        let (server, agent) = TestServer::with_agent(Settings::default()).await;
        let ca = TestCa::new();
        let shown_by_kubelet = if fault == Fault::RogueKubelet {
            TestCa::new()
        } else {
            ca.clone()
        };
        let of_kubelet = ("system:node:edge-1", "system:nodes");
        let kubelet = shown_by_kubelet.issue(of_kubelet, &["edge-1", "127.0.0.1"], ServerAuth);
        let kubelet = Target::new(&kubelet, &ca).await;
        let exporter = ca.issue(("exporter", "x"), &["edge-1"], ServerAuth);
        let exporter = Target::new(&exporter, &ca).await;
        let cluster = Arc::new(Cluster::default());
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = socket.local_addr().unwrap();
        let mut registry = Registry::default();
        let metrics = ServerMetrics::register(&mut registry);
        let snapshots = watch::Sender::new(Arc::new(snapshot(&kubelet, &exporter))).subscribe();
        let own_addresses = OwnAddresses(watch::Sender::default().subscribe());
        let dialer = Dialer::new(server.dialling(snapshots.clone(), metrics.dials));
        let identity = ca.issue(("tunnel-proxy-client", "culvert:proxy"), &[], ClientAuth);
        let identity = (fault != Fault::NoCertificate).then(|| client_identity(&identity).unwrap());
        let cas = vec![ca.certificate.clone()];
        let users = UsersOptions {
            own_addresses: own_addresses.clone(),
            reviews: Arc::clone(&cluster) as _,
            targets: TargetTls {
                cas: watch::Sender::new(cas.clone()).subscribe(),
                identity: watch::Sender::new(identity).subscribe(),
            },
            own_port: own.port(),
            proxy: ProxyOptions {
                guards_loopback_ports: true,
                snapshots: snapshots.clone(),
                dialer: dialer.clone(),
                connections: metrics.connections.clone(),
                requests: metrics.https_requests,
                under_way: metrics.requests_under_way,
            },
        };
        let own_name = ca.issue(
            ("system:node:tunnel-server", "system:nodes"),
            &["tunnel.svc", "127.0.0.1"],
            ServerAuth,
        );
        let agents = server_config_requiring_certificates(&own_name, &cas).unwrap();
        let config = terminating_server_config(&agents, &cas).unwrap();
        let withdrawn = CancellationToken::new();
        let tls = ClientTls {
            config: Arc::new(config),
            withdrawn: withdrawn.clone(),
        };
        let listening = [(HttpsTarget::Kubelet, HttpsSocket(Arc::new(socket)))].into();
        let options = HttpsOptions {
            snapshots,
            carrier: Carrier {
                clients: ClientNetworks {
                    networks: Vec::new(),
                    own_addresses,
                },
                dialer,
                connections: metrics.connections,
                clients_refused: metrics.clients_refused,
            },
            guards_loopback_ports: true,
            refusals: metrics.https_refusals,
            termination: Some(TerminationOptions {
                tls: watch::Sender::new(tls).subscribe(),
                is_own_name: Arc::new(|name| name == "tunnel.svc"),
                users,
            }),
        };
        let https = Https::new(watch::Sender::new(listening).subscribe(), options).unwrap();
        let running = tokio::spawn(https.run(Stops {
            accepting: CancellationToken::new(),
            handed_over: CancellationToken::new(),
            abort: CancellationToken::new(),
        }));
        Self {
            ca,
            cluster,
            kubelet,
            exporter,
            own,
            withdrawn,
            metrics: registry,
            _running: AbortOnDropHandle::new(running),
            _server: server,
            _agent: agent,
        }
    }

    /// A client that dials the server's address, with this certificate or none; or how its handshake fails.
    pub(super) async fn connect(
        &self,
        name: &str,
        shown: Option<&Credential>,
    ) -> std::io::Result<Wire<client::TlsStream<TcpStream>>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            Some(shown) => config
                .with_client_auth_cert(shown.chain.clone(), shown.key.clone_key())
                .unwrap(),
            None => config.with_no_client_auth(),
        };
        let socket = TcpStream::connect(self.own).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        patiently(connector.connect(name, socket)).await.map(Wire)
    }

    /// One that shows nothing when it connects.
    pub(super) async fn client(&self) -> Wire<client::TlsStream<TcpStream>> {
        self.connect("127.0.0.1", None).await.unwrap()
    }

    /// What is answered to a request of this head by the bearer of a token; `HOST` is the kubelet's.
    pub(super) async fn status(&self, token: &str, head: &str) -> (u16, String) {
        let mut client = self.client().await;
        client.say(&self.request(token, head)).await;
        client.status().await
    }

    pub(super) fn request(&self, token: &str, head: &str) -> String {
        let head = head.replace("HOST", &format!("edge-1:{}", self.kubelet.port));
        format!("{head}\r\nAuthorization: Bearer {token}\r\n\r\n")
    }

    /// From now on the token is that user's, who may do that.
    pub(super) fn grant(&self, token: &str, user: User, granted: &[&str]) {
        let granted = granted
            .iter()
            .map(|access| format!("{} {access}", user.name));
        self.cluster.granted.lock().unwrap().extend(granted);
        self.cluster
            .tokens
            .lock()
            .unwrap()
            .insert(token.to_owned(), user);
    }

    /// How many requests were counted so.
    pub(super) fn counted(&self, series: &str) -> u32 {
        let mut all = String::new();
        text::encode(&mut all, &self.metrics).unwrap();
        let series = format!("culvert_server_{series} ");
        let mut lines = all.lines();
        let value = lines.find_map(|line| line.strip_prefix(&series));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

impl Target {
    async fn new(shown: &Credential, ca: &TestCa) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate.clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
            .with_single_cert(shown.chain.clone(), shown.key.clone_key())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            port: listener.local_addr().unwrap().port(),
            listener,
            tls: TlsAcceptor::from(Arc::new(config)),
        }
    }

    /// The next connection, before a word of TLS.
    pub(super) async fn accept(&self) -> TcpStream {
        patiently(self.listener.accept()).await.unwrap().0
    }

    /// The next one, and who it is.
    pub(super) async fn secured(&self) -> (Wire<server::TlsStream<TcpStream>>, Option<User>) {
        let socket = self.accept().await;
        let stream = patiently(self.tls.accept(socket)).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates();
        let user = shown.and_then(|chain| chain.first()).map(|leaf| {
            let user = crate::pki::CertificateUser::of(leaf).unwrap();
            User::clone(&user.user)
        });
        (Wire(stream), user)
    }

    /// How the handshake with the next one fails.
    pub(super) async fn rejected(&self) -> std::io::Error {
        let socket = self.accept().await;
        patiently(self.tls.accept(socket)).await.unwrap_err()
    }

    /// Whether nobody has connected.
    pub(super) async fn is_untouched(&self) -> bool {
        let soon = std::time::Duration::from_millis(50);
        tokio::time::timeout(soon, self.listener.accept())
            .await
            .is_err()
    }
}

impl Cluster {
    fn answer<'a, T: Send + 'a>(&self, answer: T) -> BoxFuture<'a, Result<T, ReviewError>> {
        let is_down = *self.is_down.lock().unwrap();
        let answer = if is_down {
            Err(ReviewError("connection refused".to_owned()))
        } else {
            Ok(answer)
        };
        Box::pin(async { answer })
    }
}

impl Reviews for Cluster {
    fn user_of<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, ReviewError>> {
        self.answer(self.tokens.lock().unwrap().get(token).cloned())
    }

    fn may<'a>(
        &'a self,
        user: &'a User,
        access: &'a NodeAccess,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        let asked = format!("{} {access}", user.name);
        self.answer(self.granted.lock().unwrap().contains(&asked))
    }

    fn node_of<'a>(
        &'a self,
        pod: &'a PodName,
    ) -> BoxFuture<'a, Result<Option<NodeName>, ReviewError>> {
        self.answer(
            pod.name()
                .strip_prefix("on-")
                .and_then(|node| node.parse().ok()),
        )
    }
}

fn snapshot(kubelet: &Target, exporter: &Target) -> Snapshot {
    let [kubelet, exporter] =
        [kubelet, exporter].map(|target| TunnelPort::new(target.port).unwrap());
    let node = |name: &str, address: &str| Node {
        extra_ports: [kubelet].into(),
        ..enrolled(name, address)
    };
    let nodes = [node("edge-1", "127.0.0.1"), node("edge-2", "192.0.2.2")];
    let https: crate::model::PortSet = [exporter].into();
    Snapshot::new(nodes, https.clone()).with_https_ports(https)
}

pub(super) fn user(name: &str) -> User {
    User::authenticated(name.to_owned(), [])
}
