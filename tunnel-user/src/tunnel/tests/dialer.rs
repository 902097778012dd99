//! The way of a frontend to a node: by address, by name, or to a cause that is told and counted.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use prometheus_client::{encoding::text, registry::Registry};

use super::*;
use crate::{
    model::{NodeName, OriginalDst, PeerAddr, PortSet, Snapshot, SnapshotWriter},
    observability::metrics::ServerMetrics,
    tunnel::{
        Client, Destination, Dialer, DialerOptions, DialledBy, FirstBytes, testing::enrolled,
    },
};

/// A dialer of a server whose `edge-1` has these addresses, and `edge-2` no session.
struct Stage {
    server: TestServer,
    dialer: Dialer,
    metrics: Registry,
    without_session: Arc<AtomicU32>,
    _snapshots: SnapshotWriter,
    _agent: crate::tunnel::testing::TestAgent,
}

impl Stage {
    async fn new() -> Self {
        let (server, agent) = TestServer::with_agent(Settings::default()).await;
        let nodes = [("edge-1", "127.0.0.1"), ("edge-2", "192.0.2.2")];
        let nodes = nodes.map(|(name, address)| enrolled(name, address));
        let snapshots = SnapshotWriter::new(Arc::new(Snapshot::new(nodes, PortSet::new())));
        let mut metrics = Registry::default();
        let without_session = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&without_session);
        let dialer = Dialer::new(DialerOptions {
            on_no_session: Arc::new(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
            }),
            ..server.dialling(
                snapshots.subscribe(),
                ServerMetrics::register(&mut metrics).dials,
            )
        });
        Self {
            server,
            dialer,
            metrics,
            without_session,
            _snapshots: snapshots,
            _agent: agent,
        }
    }

    async fn dial(&self, to: Destination) -> Result<NodeName, DialError> {
        let by = DialledBy {
            client: Client::Machine,
            peer: PeerAddr("192.0.2.9:1".parse().unwrap()),
        };
        let dialled = patiently(self.dialer.dial(&to, by, FirstBytes::default())).await;
        dialled.map(|connection| connection.node().clone())
    }

    fn failures(&self, cause: &str) -> bool {
        let mut text = String::new();
        text::encode(&mut text, &self.metrics).unwrap();
        text.contains(&format!("dial_failures_total{{cause=\"{cause}\"}} 1"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_reached_by_each_of_its_addresses_and_by_name() {
    let stage = Stage::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let by_name = Destination::Node("edge-1".parse().unwrap(), address.port());
    let by_both = Destination::NodeAt("edge-1".parse().unwrap(), OriginalDst(address));
    for to in [Destination::Address(OriginalDst(address)), by_name, by_both] {
        assert_eq!(stage.dial(to).await.unwrap().as_str(), "edge-1");
        patiently(listener.accept()).await.unwrap();
    }
    assert_eq!(stage.server.memory.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_an_error_of_its_own_and_counted() {
    let stage = Stage::new().await;
    let nowhere: SocketAddr = "192.0.2.77:10250".parse().unwrap();
    let unknown = stage.dial(Destination::Address(OriginalDst(nowhere))).await;
    assert_eq!(unknown, Err(DialError::UnknownAddress(nowhere.ip())));
    assert!(stage.failures("unknown_node"));
    let not_its_own = Destination::NodeAt("edge-1".parse().unwrap(), OriginalDst(nowhere));
    let unknown = stage.dial(not_its_own).await;
    assert_eq!(unknown, Err(DialError::UnknownAddress(nowhere.ip())));
    let nobody: NodeName = "edge-9".parse().unwrap();
    let unknown = stage.dial(Destination::Node(nobody.clone(), 10250)).await;
    assert_eq!(unknown, Err(DialError::UnknownNode(nobody)));

    let absent: NodeName = "edge-2".parse().unwrap();
    let failed = stage.dial(Destination::Node(absent.clone(), 10250)).await;
    assert_eq!(failed, Err(DialError::NoSession(absent)));
    assert!(stage.failures("no_session"));
    assert_eq!(stage.without_session.load(Ordering::Relaxed), 1);
}
