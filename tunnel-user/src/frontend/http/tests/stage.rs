//! A frontend of a server with one agent, and a target.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    frontend::{
        OwnAddresses, Stops,
        http::{AllowedSources, HttpFrontend, HttpOptions, ProxyOptions},
        testing::{Wire, patiently},
    },
    model::{Snapshot, TunnelPort},
    observability::metrics::ServerMetrics,
    tunnel::{
        Dialer, Settings,
        testing::{TestAgent, TestServer, enrolled},
    },
};

/// `edge-1` has 127.0.0.1 and an agent, `edge-2` has none; HTTP is open on one port, at which a target listens, and on
/// port 9, where nobody does.
pub(super) struct Stage {
    pub(super) port: u16,
    address: SocketAddr,
    target: TcpListener,
    metrics: Registry,
    stops: [CancellationToken; 2],
    running: Option<AbortOnDropHandle<()>>,
    _server: TestServer,
    _agent: TestAgent,
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::with("127.0.0.1", false).await
    }

    /// `edge-1` has another address, and the target's port is one of its loopback.
    pub(super) async fn on_loopback() -> Self {
        Self::with("192.0.2.1", true).await
    }

    async fn with(edge_1: &str, on_loopback: bool) -> Self {
        let (server, agent) = TestServer::with_agent(Settings::default()).await;
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = target.local_addr().unwrap().port();
        let nodes = [enrolled("edge-1", edge_1), enrolled("edge-2", "192.0.2.2")];
        let ports = [port, 9].map(|port| TunnelPort::new(port).unwrap());
        let mut snapshot = Snapshot::new(nodes, ports.into());
        if on_loopback {
            snapshot = snapshot.with_loopback_ports([ports[0]].into());
        }
        let snapshot = Arc::new(snapshot);
        let snapshots = watch::Sender::new(snapshot).subscribe();
        let mut registry = Registry::default();
        let metrics = ServerMetrics::register(&mut registry);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let options = HttpOptions {
            allowed: AllowedSources {
                networks: watch::Sender::default().subscribe(),
                own_addresses: OwnAddresses(watch::Sender::default().subscribe()),
            },
            proxy: ProxyOptions {
                guards_loopback_ports: true,
                dialer: Dialer::new(server.dialling(snapshots.clone(), metrics.dials)),
                snapshots,
                connections: metrics.connections,
                requests: metrics.http_requests,
                under_way: metrics.requests_under_way,
            },
        };
        let [accepting, abort] = [CancellationToken::new(), CancellationToken::new()];
        let frontend = HttpFrontend::new(listener, options).unwrap();
        let running = tokio::spawn(frontend.run(Stops {
            accepting: accepting.clone(),
            handed_over: CancellationToken::new(),
            abort: abort.clone(),
        }));
        Self {
            port,
            address,
            target,
            metrics: registry,
            stops: [accepting, abort],
            running: Some(AbortOnDropHandle::new(running)),
            _server: server,
            _agent: agent,
        }
    }

    /// The target, as `Host` names it.
    pub(super) fn host(&self) -> String {
        format!("edge-1:{}", self.port)
    }

    pub(super) async fn client(&self) -> Wire {
        Wire(patiently(TcpStream::connect(self.address)).await.unwrap())
    }

    /// Some that connect again and again, no faster than they are accepted, for as long as anybody listens.
    pub(super) fn crowd(&self) -> AbortOnDropHandle<()> {
        let address = self.address;
        let connects = move || async move {
            while let Ok(client) = TcpStream::connect(address).await {
                // No port waits for its end.
                client.set_zero_linger().unwrap();
                drop(client);
                sleep(Duration::from_millis(1)).await;
            }
        };
        AbortOnDropHandle::new(tokio::spawn(async move {
            join_all((0..8).map(|_| connects())).await;
        }))
    }

    /// The target's end of the next connection to it.
    pub(super) async fn accept(&self) -> Wire {
        Wire(patiently(self.target.accept()).await.unwrap().0)
    }

    /// Whether anybody has connected to the target.
    pub(super) async fn is_untouched(&self) -> bool {
        let soon = Duration::from_millis(50);
        timeout(soon, self.target.accept()).await.is_err()
    }

    /// A client with its target, which has read the head of the request.
    pub(super) async fn asked(&self, request: &str) -> (Wire, Wire, String) {
        let mut client = self.client().await;
        client.say(&request.replace("HOST", &self.host())).await;
        let mut target = self.accept().await;
        let head = target.head().await;
        (client, target, head)
    }

    /// How many requests were counted so.
    pub(super) fn counted(&self, code: &str, reason: &str) -> Option<u32> {
        let mut all = String::new();
        text::encode(&mut all, &self.metrics).unwrap();
        let wanted = format!("http_requests_total{{code=\"{code}\",reason=\"{reason}\"}} ");
        let mut lines = all.lines();
        lines.find_map(|line| line.split_once(&wanted)?.1.parse().ok())
    }

    pub(super) fn stop(&self) {
        self.stops[0].cancel();
    }

    pub(super) fn abort(&self) {
        self.stops[1].cancel();
    }

    pub(super) async fn ended(&mut self) {
        patiently(self.running.take().unwrap()).await.unwrap();
    }
}
