//! Two servers of a control plane, of which only one has the agent's session.

use std::{slice, sync::Arc};

use http::{Method, Request, StatusCode};
use rcgen::DnType;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{cluster_identity::issued, *};
use crate::{
    model::{Node, OriginalDst, PeerAddr, PortSet, Snapshot, TunnelPort},
    observability::metrics::DialFailure,
    pki::{RELAY_SUBJECT, SERVER_NAME, ServerProof, client_config},
    tunnel::{
        Client, Connection, Destination, Dialer, DialerOptions, DialledBy, FirstBytes, Relay,
        RelayOptions, RelayServer, Transfer,
        agent::Policy,
        relay::RELAY_PATH,
        testing::{TestAgent, name},
    },
};

/// Where the target listens, a server with the session, and a server that relays.
struct Stage {
    target: TcpListener,
    holder: TestServer,
    near: TestServer,
    agent: TestAgent,
    servers: watch::Sender<Vec<RelayServer>>,
    /// What proves the server that relays.
    tls: watch::Sender<Option<Arc<ClientConfig>>>,
    relay: Relay,
    dialer: Dialer,
    shutdown: CancellationToken,
    _relaying: AbortOnDropHandle<()>,
}

fn relaying(server: &TestServer) -> Arc<ClientConfig> {
    let subject = [
        (DnType::CommonName, RELAY_SUBJECT.common_name),
        (DnType::OrganizationName, RELAY_SUBJECT.organization),
    ];
    let cas = slice::from_ref(server.ca.certificate());
    let credential = issued(server, subject, "worker-1");
    Arc::new(client_config(&credential, cas, ServerProof::OwnCa).unwrap())
}

fn entry(id: &str, server: &TestServer) -> RelayServer {
    RelayServer {
        id: id.to_owned(),
        address: (server.address.ip(), server.address.port()).into(),
    }
}

impl Stage {
    async fn new() -> Self {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let holder = TestServer::in_cluster(Settings::default()).await;
        let near = holder.beside("near").await;
        let port = TunnelPort::new(target.local_addr().unwrap().port()).unwrap();
        let node = Node {
            name: name("edge-1"),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            extra_ports: PortSet::new(),
            closed_gate: None,
            admits: None,
        };
        let snapshot = Arc::new(Snapshot::new([node], [port].into()));
        holder.snapshots.send_replace(Arc::clone(&snapshot));
        near.snapshots.send_replace(snapshot);
        let agent = holder.agent("edge-1", "k", Policy::new(Vec::new(), Vec::new()));
        holder.until_session("edge-1").await;
        let (servers, listed) = watch::channel(vec![entry("holder", &holder)]);
        let (tls, proof) = watch::channel(Some(relaying(&holder)));
        let relay = Relay::new(RelayOptions {
            servers: listed,
            tls: proof,
            server_name: Some(SERVER_NAME.try_into().unwrap()),
            settings: near.settings,
            memory: near.memory.clone(),
            mark: "1".parse().unwrap(),
            carried: near.metrics.carried.clone(),
            metrics: near.metrics.relay.clone(),
        });
        let dialer = Dialer::new(DialerOptions {
            relay: Some(relay.clone()),
            ..near.dialling(near.snapshots.subscribe(), near.metrics.dials.clone())
        });
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(relay.clone().run(shutdown.clone()));
        Self {
            target,
            holder,
            near,
            agent,
            servers,
            tls,
            relay,
            dialer,
            shutdown,
            _relaying: AbortOnDropHandle::new(running),
        }
    }

    fn port(&self) -> u16 {
        self.target.local_addr().unwrap().port()
    }

    async fn dial(&self, port: u16, first: FirstBytes<'_>) -> Result<Connection, DialError> {
        let by = DialledBy {
            client: Client::Machine,
            peer: PeerAddr("192.0.2.9:1".parse().unwrap()),
        };
        let to = Destination::Address(OriginalDst(([127, 0, 0, 1], port).into()));
        patiently(self.dialer.dial(&to, by, first)).await
    }

    /// A client, its target, and how the carrying ends.
    async fn carried(&self) -> (TcpStream, TcpStream, AbortOnDropHandle<Transfer>) {
        let connection = self.dial(self.port(), FirstBytes::default()).await.unwrap();
        assert!(matches!(connection, Connection::Relayed(_)));
        let (client, accepted) = tcp_pair().await;
        let carrying = tokio::spawn(connection.carry(accepted, self.shutdown.clone()));
        let (target, _) = patiently(self.target.accept()).await.unwrap();
        (client, target, AbortOnDropHandle::new(carrying))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_arrive_unchanged_and_each_direction_ends_on_its_own() {
    let stage = Stage::new().await;
    let (mut client, mut target, carrying) = stage.carried().await;
    let (request, answer) = (pattern(3 << 20, 1), pattern(5 << 20, 2));
    let asking = async {
        client.write_all(&request).await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert!(received == answer);
    };
    let answering = async {
        let mut received = Vec::new();
        target.read_to_end(&mut received).await.unwrap();
        assert!(received == request);
        // Only after the end of the request: the other direction is still open.
        target.write_all(&answer).await.unwrap();
        drop(target);
    };
    patiently(async { tokio::join!(asking, answering) }).await;
    assert!(patiently(carrying).await.unwrap().end.is_ok());
    let (asked, answered) = (
        &stage.near.metrics.relay.asked,
        &stage.holder.metrics.relay.answered,
    );
    assert_eq!((asked.get(), answered.get()), (1, 1));
    for server in [&stage.near, &stage.holder] {
        patiently(async {
            while server.memory.held() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_goes_all_the_way_from_either_end() {
    let stage = Stage::new().await;
    let (client, mut target, _carrying) = stage.carried().await;
    crate::tunnel::reset(&client);
    drop(client);
    assert!(is_reset(patiently(target.read_u8()).await));
    let (mut client, target, _carrying) = stage.carried().await;
    crate::tunnel::reset(&target);
    drop(target);
    assert!(is_reset(patiently(client.read_u8()).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_said_first_travels_along_and_arrives_once() {
    let stage = Stage::new().await;
    let hello = pattern(FirstBytes::MOST, 3);
    let (mut client, accepted) = tcp_pair().await;
    client.write_all(&hello).await.unwrap();
    patiently(accepted.readable()).await.unwrap();
    let dialling = stage.dial(stage.port(), FirstBytes::of(&accepted));
    let (dialled, target) = tokio::join!(dialling, patiently(stage.target.accept()));
    let (mut target, _) = target.unwrap();
    let carrying = dialled.unwrap().carry(accepted, stage.shutdown.clone());
    let _carrying = AbortOnDropHandle::new(tokio::spawn(carrying));
    client.write_all(b"more").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    patiently(target.read_to_end(&mut heard)).await.unwrap();
    assert!(heard == [&hello[..], b"more"].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_comes_back_with_its_cause_and_the_server_that_says_so() {
    let Stage {
        target,
        holder,
        near,
        dialer,
        agent: _agent,
        _relaying,
        ..
    } = Stage::new().await;
    let dst = target.local_addr().unwrap();
    drop(target);
    let dial = async || {
        let by = DialledBy {
            client: Client::Machine,
            peer: PeerAddr("192.0.2.9:1".parse().unwrap()),
        };
        let to = Destination::Address(OriginalDst(dst));
        patiently(dialer.dial(&to, by, FirstBytes::default()))
            .await
            .err()
    };
    let failed = dial().await.unwrap();
    assert!(
        matches!(&failed, DialError::Relayed { failure: DialFailure::Refused, server, .. }
            if **server == *holder.address.to_string()),
        "{failed}"
    );
    // The other server goes by its own tables.
    let nothing = Arc::new(Snapshot::new(
        near.snapshots.borrow().nodes().values().cloned(),
        PortSet::new(),
    ));
    holder.snapshots.send_replace(nothing);
    let failed = dial().await.unwrap();
    assert!(
        matches!(
            &failed,
            DialError::Relayed {
                failure: DialFailure::Denied,
                ..
            }
        ),
        "{failed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_have_no_session_or_are_gone_are_passed_over() {
    let stage = Stage::new().await;
    let idle = stage.holder.beside("idle").await;
    let gone = RelayServer {
        id: "gone".into(),
        address: "127.0.0.1:1".parse().unwrap(),
    };
    let mut all = vec![gone.clone(), entry("idle", &idle)];
    stage.servers.send_replace(all.clone());
    let failed = stage.dial(stage.port(), FirstBytes::default()).await;
    assert_eq!(failed.err(), Some(DialError::NoSession(name("edge-1"))));
    all.push(entry("holder", &stage.holder));
    stage.servers.send_replace(all);
    for _ in 0..5 {
        let _carried = stage.carried().await;
    }
    // Its own session is nearer, as soon as there is one.
    let own = stage
        .near
        .agent("edge-1", "k", Policy::new(Vec::new(), Vec::new()));
    stage.near.until_session("edge-1").await;
    let direct = stage
        .dial(stage.port(), FirstBytes::default())
        .await
        .unwrap();
    assert!(matches!(direct, Connection::Direct(_)));
    own.end().await;
    stage.agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_lost_takes_its_connections_along_and_is_opened_anew() {
    let stage = Stage::new().await;
    let (mut client, _target, _carrying) = stage.carried().await;
    let Stage {
        holder,
        near,
        agent,
        servers,
        dialer,
        target,
        relay: _relay,
        _relaying,
        ..
    } = stage;
    let other = holder.beside("other").await;
    let snapshot = Arc::clone(&near.snapshots.borrow());
    other.snapshots.send_replace(snapshot);
    agent.list(&[other.address]);
    patiently(holder.end()).await;
    assert!(is_reset(patiently(client.read_u8()).await));
    other.until_session("edge-1").await;
    servers.send_replace(vec![entry("other", &other)]);
    let by = DialledBy {
        client: Client::Machine,
        peer: PeerAddr("192.0.2.9:1".parse().unwrap()),
    };
    let to = Destination::Node(name("edge-1"), target.local_addr().unwrap().port());
    let dialled = patiently(dialer.dial(&to, by, FirstBytes::default())).await;
    assert_eq!(dialled.unwrap().node().as_str(), "edge-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_about_to_stop_lets_relayed_clients_finish_and_takes_no_more() {
    let stage = Stage::new().await;
    let (mut client, mut target, carrying) = stage.carried().await;
    let (stopping, abort) = (CancellationToken::new(), CancellationToken::new());
    let callers = stage.holder.relay_callers.clone();
    let mut draining = tokio::spawn(callers.run(stopping.clone(), abort.clone()));
    stopping.cancel();
    until_refused(&stage).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = String::new();
    patiently(target.read_to_string(&mut heard)).await.unwrap();
    assert!(!draining.is_finished() && heard == "question");
    drop(target);
    assert!(patiently(carrying).await.unwrap().end.is_ok());
    patiently(&mut draining).await.unwrap();

    let stage = Stage::new().await;
    let (mut client, _target, _carrying) = stage.carried().await;
    let callers = stage.holder.relay_callers.clone();
    let draining = tokio::spawn(callers.run(stopping, abort.clone()));
    until_refused(&stage).await;
    abort.cancel();
    assert!(is_reset(patiently(client.read_u8()).await));
    patiently(draining).await.unwrap();
}

async fn until_refused(stage: &Stage) {
    let dial = || Box::pin(stage.dial(stage.port(), FirstBytes::default()));
    while dial().await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_at_once_and_the_links_of_the_one_before_end_by_themselves() {
    let stage = Stage::new().await;
    let (mut client, mut target, carrying) = stage.carried().await;
    let opened = || stage.holder.relay_callers.links(&name("worker-1"));
    assert_eq!(opened(), 1);
    let _second = stage.carried().await;
    assert_eq!(opened(), 1);
    stage.tls.send_replace(Some(relaying(&stage.holder)));
    let _third = stage.carried().await;
    assert_eq!(opened(), 2);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = String::new();
    patiently(target.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "question");
    drop(target);
    assert!(patiently(carrying).await.unwrap().end.is_ok());
}

/// The status of a request that is made with that certificate.
async fn status(server: &TestServer, tls: Arc<ClientConfig>, path: &str) -> StatusCode {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://{}{path}", server.address))
        .header("culvert-address", "127.0.0.1:10250")
        .header("culvert-first-bytes", "0")
        .body(())
        .unwrap();
    let mut requests = patiently(requests.ready()).await.unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    patiently(response).await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_relay_and_a_relay_cannot_register() {
    let stage = Stage::new().await;
    let agents = stage.agent.tls.borrow().clone();
    let refused = status(&stage.holder, agents, RELAY_PATH).await;
    // Whatever is no call of an agent's goes to the unary services, which have none of that name.
    assert_eq!(refused, StatusCode::OK, "a status of gRPC");
    assert_eq!(stage.holder.metrics.relay.answered.get(), 0);
    let relays = relaying(&stage.holder);
    let registering = status(&stage.holder, Arc::clone(&relays), "/AgentService/Connect").await;
    assert_eq!(registering, StatusCode::OK, "a status of gRPC");
    assert_eq!(stage.holder.sessions.count(), 1);
    let relayed = status(&stage.holder, relays, RELAY_PATH).await;
    assert_eq!(
        relayed,
        StatusCode::BAD_GATEWAY,
        "nothing tunnelled on 10250"
    );
}
