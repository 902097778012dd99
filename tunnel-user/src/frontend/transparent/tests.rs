use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::{
    model::{IdentityKey, Node, PortSet, Snapshot},
    observability::metrics::ServerMetrics,
    tunnel::{
        Settings,
        testing::{PATIENCE, TestAgent, TestServer},
    },
};

/// Every client has asked for this; telling what one asked for takes the kernel programs.
struct Asked(OriginalDst);

impl OriginalDsts for Asked {
    fn of(&self, _: &TcpStream) -> io::Result<Option<OriginalDst>> {
        Ok(Some(self.0))
    }
}

/// A frontend for clients that asked for `asked`, an address of `edge-1`, whose agent has a
/// session; services on `loopback_port` listen on its loopback.
struct Frontend {
    address: SocketAddr,
    _running: AbortOnDropHandle<()>,
    _session: (TestServer, TestAgent),
}

impl Frontend {
    async fn start(asked: SocketAddr, loopback_port: u16) -> Self {
        let (server, agent) = TestServer::with_agent(Settings::default()).await;
        let node = Node {
            name: "edge-1".parse().unwrap(),
            addresses: vec![asked.ip()],
            extra_ports: PortSet::new(),
            closed_gate: None,
            admits: Some(IdentityKey::from("k")),
        };
        let loopback_ports = [loopback_port.to_string().parse().unwrap()].into();
        let snapshot = Snapshot::new([node], PortSet::new()).with_loopback_ports(loopback_ports);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = ServerMetrics::register(&mut Registry::default());
        let transparent = Transparent::new(
            vec![listener],
            TransparentOptions {
                original_dsts: Arc::new(Asked(OriginalDst(asked))),
                snapshots: tokio::sync::watch::Sender::new(Arc::new(snapshot)).subscribe(),
                sessions: server.sessions.clone(),
                dial_timeout: PATIENCE,
                patient_until: Instant::now(),
                heartbeat: Box::new(|| {}),
                metrics: TransparentMetrics {
                    connections: metrics.connections,
                    dials: metrics.dials,
                    without_original_dst: metrics.without_original_destination,
                },
            },
        );
        let running = tokio::spawn(transparent.run(TransparentStops {
            accepting: CancellationToken::new(),
            handed_over: CancellationToken::new(),
            abort: CancellationToken::new(),
        }));
        Self {
            address,
            _running: AbortOnDropHandle::new(running),
            _session: (server, agent),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loopback_port_is_carried_to_the_nodes_loopback_of_the_same_family() {
    for (node, loopback) in [("192.0.2.1", "127.0.0.1"), ("2001:db8::1", "::1")] {
        let listener = TcpListener::bind((loopback, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = SocketAddr::new(node.parse().unwrap(), port);
        let frontend = Frontend::start(asked, port).await;
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
    let frontend = Frontend::start(asked, port ^ 1).await;
    let mut client = TcpStream::connect(frontend.address).await.unwrap();
    // The agent may dial its loopback, but not that address.
    let read = timeout(PATIENCE, client.read(&mut [0])).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
