//! Several servers, behind one address or several: the agent has a session with each.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::patiently;
use crate::tunnel::{
    Settings,
    agent::{Policy, ServerState},
    testing::{TestAgent, TestServer},
};

/// A load balancer: each connection goes to the next of the servers behind it.
struct Balancer {
    address: SocketAddr,
    behind: Arc<Mutex<Vec<SocketAddr>>>,
    taken: Arc<AtomicUsize>,
    _running: AbortOnDropHandle<()>,
}

impl Balancer {
    async fn of(servers: &[&TestServer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = Arc::new(Mutex::new(addresses(servers)));
        let taken = Arc::new(AtomicUsize::new(0));
        let running = tokio::spawn(balance(listener, Arc::clone(&behind), Arc::clone(&taken)));
        Self {
            address,
            behind,
            taken,
            _running: AbortOnDropHandle::new(running),
        }
    }

    fn put(&self, servers: &[&TestServer]) {
        *self.behind.lock().unwrap() = addresses(servers);
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

async fn balance(
    listener: TcpListener,
    behind: Arc<Mutex<Vec<SocketAddr>>>,
    taken: Arc<AtomicUsize>,
) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((mut caller, _)) = listener.accept().await {
        let number = taken.fetch_add(1, Ordering::SeqCst);
        let server = {
            let behind = behind.lock().unwrap();
            behind[number % behind.len()]
        };
        open.spawn(async move {
            let mut server = TcpStream::connect(server).await.unwrap();
            // Either side may go away in the midst of it.
            let _ = tokio::io::copy_bidirectional(&mut caller, &mut server).await;
        });
    }
}

fn addresses(servers: &[&TestServer]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}

fn agent(server: &TestServer, address: SocketAddr) -> TestAgent {
    let policy = Policy::new(Vec::new(), Vec::new());
    server.agent_of(&[address], "edge-1", "k", policy)
}

fn tell(servers: &[&TestServer], count: u32) {
    for server in servers {
        server.server_count.send_replace(count);
    }
}

/// Waits until the agent has a session with each of these and with nobody else, one each.
async fn until_with(agent: &TestAgent, expected: &[&str]) {
    let mut changes = agent.servers.changes();
    let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    patiently(async {
        while with(agent) != expected {
            changes.changed().await.unwrap();
        }
    })
    .await;
}

fn with(agent: &TestAgent) -> Vec<String> {
    let reports = agent.servers.reports().into_iter();
    let mut ids: Vec<_> = reports
        .filter_map(|report| match report.state {
            ServerState::Up(info) => Some(info.server_id),
            ServerState::Down(_) | ServerState::Duplicate { .. } => None,
        })
        .collect();
    ids.sort();
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!(
        distinct.len(),
        ids.len(),
        "two sessions with one server: {ids:?}"
    );
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_one_address_every_server_is_found_and_nobody_is_asked_again() {
    let first = TestServer::start(Settings::default()).await;
    let (second, third) = (
        first.beside("server-2").await,
        first.beside("server-3").await,
    );
    let servers = [&first, &second, &third];
    tell(&servers, 3);
    let balancer = Balancer::of(&servers).await;
    let agent = agent(&first, balancer.address);
    until_with(&agent, &["server-1", "server-2", "server-3"]).await;
    for server in servers {
        server.until_session("edge-1").await;
        assert_eq!(server.sessions.count(), 1);
    }
    let taken = balancer.taken();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(balancer.taken(), taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_come_and_go_under_the_agents_sessions() {
    let first = TestServer::start(Settings::default()).await;
    let second = first.beside("server-2").await;
    let balancer = Balancer::of(&[&first]).await;
    let agent = agent(&first, balancer.address);
    until_with(&agent, &["server-1"]).await;
    let connection = first.carried().await;

    // One more: told to the session that is there, and met without closing it.
    balancer.put(&[&first, &second]);
    tell(&[&first, &second], 2);
    until_with(&agent, &["server-1", "server-2"]).await;

    // The first goes, and asks for sessions with the one that takes its place.
    let successor = first.beside("server-1b").await;
    tell(&[&successor], 2);
    balancer.put(&[&second, &successor]);
    first.sessions.drain();
    until_with(&agent, &["server-1b", "server-2"]).await;
    drop(connection);

    // One less: nobody is missing any more.
    balancer.put(&[&successor]);
    second.end().await;
    tell(&[&successor], 1);
    until_with(&agent, &["server-1b"]).await;
    successor.carried().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_addresses_of_the_same_servers_take_the_sessions_over() {
    let server = TestServer::start(Settings::default()).await;
    let [before, after] = [
        Balancer::of(&[&server]).await,
        Balancer::of(&[&server]).await,
    ];
    let agent = agent(&server, before.address);
    until_with(&agent, &["server-1"]).await;
    let open = server.carried().await;
    agent.list(&[after.address]);
    let moved = |agent: &TestAgent| {
        let reports = agent.servers.reports().into_iter();
        let up = reports.filter(|report| matches!(report.state, ServerState::Up(_)));
        let hosts: Vec<_> = up.map(|report| report.server.to_string()).collect();
        hosts == [after.address.to_string()]
    };
    let mut changes = agent.servers.changes();
    patiently(async {
        while !moved(&agent) {
            changes.changed().await.unwrap();
            // Clients are carried all the time.
            server.carried().await;
        }
    })
    .await;
    // What was open goes on, and its session ends with it.
    assert_eq!(server.sessions.count(), 2);
    drop(open);
    server.until(|sessions| sessions.count() == 1).await;
}
