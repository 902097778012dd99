use prometheus_client::{encoding::text, registry::Registry};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener as TokioListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::*;
use crate::{
    frontend::{ClientNetworks, OwnAddresses},
    model::{Node, Snapshot, TunnelPort},
    observability::metrics::ServerMetrics,
    pki::provider,
    tunnel::{
        Dialer, Settings,
        testing::{PATIENCE, TestAgent, TestServer, enrolled},
    },
};

/// A frontend whose port means the kubelet of `edge-1`, which is a socket of the test, and of `edge-2`, which has no
/// session.
struct Stage {
    frontend: std::net::SocketAddr,
    kubelet: TokioListener,
    metrics: Registry,
    stop: CancellationToken,
    running: AbortOnDropHandle<()>,
    _server: TestServer,
    _agent: TestAgent,
}

impl Stage {
    async fn new() -> Self {
        let (server, agent) = TestServer::with_agent(Settings::default()).await;
        let kubelet = TokioListener::bind("127.0.0.1:0").await.unwrap();
        let port = TunnelPort::new(kubelet.local_addr().unwrap().port()).unwrap();
        let node = |name: &str| Node {
            extra_ports: [port].into(),
            ..enrolled(name, "127.0.0.1")
        };
        let snapshot = Snapshot::new([node("edge-1"), node("edge-2")], [port].into());
        let snapshots = watch::Sender::new(Arc::new(snapshot)).subscribe();
        let mut registry = Registry::default();
        let metrics = ServerMetrics::register(&mut registry);
        let carrier = Carrier {
            clients: ClientNetworks {
                networks: Vec::new(),
                own_addresses: OwnAddresses(watch::Sender::default().subscribe()),
            },
            dialer: Dialer::new(server.dialling(snapshots.clone(), metrics.dials)),
            connections: metrics.connections,
            clients_refused: metrics.clients_refused,
        };
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let frontend = socket.local_addr().unwrap();
        let listening = [(HttpsTarget::Kubelet, HttpsSocket(Arc::new(socket)))].into();
        let https = Https::new(
            watch::Sender::new(listening).subscribe(),
            HttpsOptions {
                snapshots,
                carrier,
                guards_loopback_ports: true,
                refusals: metrics.https_refusals,
                termination: None,
            },
        );
        let stop = CancellationToken::new();
        let running = tokio::spawn(https.unwrap().run(Stops {
            accepting: stop.clone(),
            handed_over: CancellationToken::new(),
            abort: CancellationToken::new(),
        }));
        Self {
            frontend,
            kubelet,
            metrics: registry,
            stop,
            running: AbortOnDropHandle::new(running),
            _server: server,
            _agent: agent,
        }
    }

    async fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.frontend).await.unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    async fn accept(&self) -> TcpStream {
        patiently(self.kubelet.accept()).await.unwrap().0
    }

    /// What a client hears that says this, until the end.
    async fn answer(&self, said: &[u8]) -> Vec<u8> {
        let mut client = self.connect().await;
        client.write_all(said).await.unwrap();
        let mut heard = Vec::new();
        patiently(client.read_to_end(&mut heard)).await.unwrap();
        heard
    }

    fn refusals(&self, reason: &str) -> u64 {
        let mut text = String::new();
        text::encode(&mut text, &self.metrics).unwrap();
        let series = format!("culvert_server_https_refusals_total{{reason=\"{reason}\"}} ");
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(&series));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap()
}

/// What rustls sends to that server.
fn hello(server: &'static str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), server.try_into().unwrap()).unwrap();
    let mut sent = Vec::new();
    client.write_tls(&mut sent).unwrap();
    sent
}

async fn hears(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    patiently(stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_in_whatever_pieces_goes_to_the_named_node_untouched_and_what_follows_too() {
    let stage = Stage::new().await;
    let hello = hello("edge-1");
    for pieces in [1, 3, 40] {
        let mut client = stage.connect().await;
        for piece in hello.chunks(hello.len().div_ceil(pieces)) {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut kubelet = stage.accept().await;
        hears(&mut kubelet, &hello).await;
        kubelet.write_all(b"server hello").await.unwrap();
        hears(&mut client, b"server hello").await;
        client.write_all(b"finished").await.unwrap();
        client.shutdown().await.unwrap();
        hears(&mut kubelet, b"finished").await;
        assert_eq!(patiently(kubelet.read(&mut [0])).await.unwrap(), 0);
        kubelet
            .write_all(b"the answer after the half-close")
            .await
            .unwrap();
        drop(kubelet);
        let mut heard = Vec::new();
        patiently(client.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, b"the answer after the half-close");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cannot_be_carried_hears_why_and_is_counted() {
    let stage = Stage::new().await;
    let broken = [&hello("edge-1")[..200], &[0xff; 2000]].concat();
    let endless = [
        &[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff][..],
        &vec![0; 100_000],
    ]
    .concat();
    for (said, reason, alert) in [
        (&hello("10.78.0.11")[..], "no_server_name", 109),
        (&hello("edge-3"), "unknown_name", 112),
        (&hello("edge-2"), "dial_failed", 80),
        (b"GET / HTTP/1.1\r\n\r\n", "not_tls", 10),
        (&broken, "malformed", 50),
        (&endless, "too_long", 47),
    ] {
        let heard = stage.answer(said).await;
        assert_eq!(heard, [21, 3, 3, 0, 2, 2, alert], "{reason}");
        assert_eq!(stage.refusals(reason), 1, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_or_says_nothing_is_gone_without_a_word() {
    let stage = Stage::new().await;
    let mut silent = stage.connect().await;
    let mut half = stage.connect().await;
    half.write_all(&hello("edge-1")[..100]).await.unwrap();
    let mut leaving = stage.connect().await;
    leaving.write_all(&hello("edge-1")[..100]).await.unwrap();
    leaving.shutdown().await.unwrap();
    for client in [&mut leaving, &mut silent, &mut half] {
        let end = patiently(client.read(&mut [0])).await;
        assert!(!matches!(end, Ok(1..)), "{end:?}");
    }
    assert_eq!((stage.refusals("left"), stage.refusals("too_slow")), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_that_stops_takes_nobody_and_waits_for_those_it_has() {
    let Stage {
        frontend,
        kubelet,
        stop,
        running,
        _server,
        _agent,
        ..
    } = Stage::new().await;
    let mut client = TcpStream::connect(frontend).await.unwrap();
    client.write_all(&hello("edge-1")).await.unwrap();
    let (mut kubelet, _) = patiently(kubelet.accept()).await.unwrap();
    stop.cancel();
    let refused = async { while TcpStream::connect(frontend).await.is_ok() {} };
    patiently(refused).await;
    kubelet.write_all(b"still here").await.unwrap();
    hears(&mut client, b"still here").await;
    assert!(!running.is_finished());
    drop((client, kubelet));
    patiently(running).await.unwrap();
}
