use std::sync::atomic::{AtomicU32, Ordering};

use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::*;
use crate::{
    frontend::{ClientNetworks, OwnAddresses},
    model::{ARRIVED, PortSet, Snapshot},
    observability::{metrics::ServerMetrics, readiness::Readiness},
    tunnel::{
        Dialer, DialerOptions, Settings,
        testing::{PATIENCE, TestServer, enrolled},
    },
};

/// Every client has asked for this; telling what one asked for takes the kernel programs.
struct Asked(OriginalDst);

impl OriginalDsts for Asked {
    fn of(&self, _: &TcpStream) -> io::Result<Option<OriginalDst>> {
        Ok(Some(self.0))
    }
}

/// A frontend for clients that asked for `asked`, an address of `edge-1`; services on
/// `loopback_port` listen on its loopback.
struct Frontend {
    address: SocketAddr,
    without_session: Arc<AtomicU32>,
    arrivals: Arrivals,
    listening: watch::Sender<Listening>,
    _running: AbortOnDropHandle<()>,
}

impl Frontend {
    fn start(server: &TestServer, asked: SocketAddr, loopback_port: u16) -> Self {
        let node = enrolled("edge-1", &asked.ip().to_string());
        let loopback_ports = [loopback_port.to_string().parse().unwrap()].into();
        let snapshot = Snapshot::new([node], PortSet::new()).with_loopback_ports(loopback_ports);
        let client = client_socket();
        let (address, listening) = (client.address, Listening::from([(Family::V4, client)]));
        let listening = watch::Sender::new(listening);
        let metrics = ServerMetrics::register(&mut Registry::default());
        let without_session = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&without_session);
        let arrivals = Arrivals::default();
        let snapshots = watch::Sender::new(Arc::new(snapshot)).subscribe();
        let dialer = Dialer::new(DialerOptions {
            on_no_session: Arc::new(move |node| {
                assert_eq!(node.as_str(), "edge-1");
                counted.fetch_add(1, Ordering::Relaxed);
            }),
            ..server.dialling(snapshots, metrics.dials)
        });
        let transparent = Transparent::new(
            listening.subscribe(),
            AcceptSigns {
                heartbeat: Box::new(|| {}),
                accepting: Accepting {
                    condition: Readiness::default().register("accept"),
                    works: watch::Sender::new(true),
                },
            },
            TransparentOptions {
                original_dsts: Arc::new(Asked(OriginalDst(asked))),
                carrier: Carrier {
                    clients: ClientNetworks {
                        networks: Vec::new(),
                        own_addresses: OwnAddresses(watch::Sender::default().subscribe()),
                    },
                    dialer,
                    connections: metrics.connections,
                    clients_refused: metrics.clients_refused,
                },
                arrivals: arrivals.clone(),
                without_original_dst: metrics.without_original_destination,
            },
        );
        let transparent = transparent.unwrap();
        let running = tokio::spawn(transparent.run(Stops {
            accepting: CancellationToken::new(),
            handed_over: CancellationToken::new(),
            abort: CancellationToken::new(),
        }));
        Self {
            address,
            without_session,
            arrivals,
            listening,
            _running: AbortOnDropHandle::new(running),
        }
    }

    /// How the connection of a client ends that reads at once.
    async fn refuses(&self) -> io::Error {
        // A reset that comes this soon may already be the result of the connect.
        let client = async { TcpStream::connect(self.address).await?.read(&mut [0]).await };
        let read = timeout(PATIENCE, client).await.unwrap();
        read.unwrap_err()
    }
}

fn client_socket() -> ClientSocket {
    let socket = net::TcpListener::bind("127.0.0.1:0").unwrap();
    ClientSocket {
        address: socket.local_addr().unwrap(),
        reason: String::new(),
        socket: Arc::new(socket),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loopback_port_is_carried_to_the_nodes_loopback_of_the_same_family() {
    for (node, loopback) in [("192.0.2.1", "127.0.0.1"), ("2001:db8::1", "::1")] {
        let listener = TcpListener::bind((loopback, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = SocketAddr::new(node.parse().unwrap(), port);
        let (server, _agent) = TestServer::with_agent(Settings::default()).await;
        let frontend = Frontend::start(&server, asked, port);
        let mut client = TcpStream::connect(frontend.address).await.unwrap();
        let (mut target, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        client.write_all(b"ask").await.unwrap();
        let mut heard = [0; 3];
        timeout(PATIENCE, target.read_exact(&mut heard))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&heard, b"ask");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_port_is_carried_to_the_address_that_was_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let frontend = Frontend::start(&server, asked, port ^ 1);
    // The agent may dial its loopback, but not that address.
    let error = frontend.refuses().await;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(frontend.without_session.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_node_without_a_session_is_reset_and_somebody_is_told() {
    let server = TestServer::start(Settings::default()).await;
    let asked = "192.0.2.1:10250".parse().unwrap();
    let frontend = Frontend::start(&server, asked, 1);
    let error = frontend.refuses().await;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(frontend.without_session.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_answered_and_is_no_client() {
    for family in Family::ALL {
        let server = TestServer::start(Settings::default()).await;
        let asked = SocketAddr::new(family.probe_target(), 10250);
        let frontend = Frontend::start(&server, asked, 1);
        let mut probe = TcpStream::connect(frontend.address).await.unwrap();
        let mut heard = Vec::new();
        let read = timeout(PATIENCE, probe.read_to_end(&mut heard)).await;
        read.unwrap().unwrap();
        assert_eq!(heard, ARRIVED);
        assert_eq!(frontend.arrivals.of(family), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_taken_from_a_socket_that_takes_anothers_place_and_for_a_while_from_the_other()
{
    let server = TestServer::start(Settings::default()).await;
    let asked = SocketAddr::new(Family::V4.probe_target(), 10250);
    let frontend = Frontend::start(&server, asked, 1);
    let other = client_socket();
    let new = other.address;
    frontend
        .listening
        .send_replace(Listening::from([(Family::V4, other)]));
    for address in [new, frontend.address] {
        let mut probe = TcpStream::connect(address).await.unwrap();
        let mut heard = Vec::new();
        let read = timeout(PATIENCE, probe.read_to_end(&mut heard)).await;
        read.unwrap().unwrap();
        assert_eq!(heard, ARRIVED);
    }
    // Its heartbeat looks after it.
    let refused = timeout(PATIENCE * 2, async {
        while TcpStream::connect(frontend.address).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    refused.await.unwrap();
}
