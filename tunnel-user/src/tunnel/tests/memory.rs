//! What peers can make this process hold: bytes, not payload, and bounded for all of them together.

use std::fs;

use bytes::Bytes;
use h2::{SendStream, client::SendRequest};
use http::{Method, Request};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use super::*;
use crate::{
    grpc::{Channel, capacity},
    model::{NodeName, Target},
    pki::SERVER_NAME,
    tunnel::{
        Client, Memory, Transfer,
        http2::{ReadAhead, SharedSocket},
        memory::SMALLEST_WINDOW,
        metadata::AgentHello,
        testing::{LIFE, identity},
        wire::{CARRY_PATH, Control, DIAL_HEADER, Packet, agent_service_client},
    },
};

const WINDOW: usize = 256 * 1024;

/// An agent that writes its frames itself, and does not look at what it dials.
struct RawAgent {
    requests: SendRequest<Bytes>,
    packets: Streaming<Packet>,
    _control_tx: mpsc::Sender<Packet>,
    _driving: AbortOnDropHandle<()>,
}

/// A client whose connection that agent has answered.
struct RawConnection {
    client: TcpStream,
    from_agent: SendStream<Bytes>,
    carrying: AbortOnDropHandle<Transfer>,
}

impl RawAgent {
    async fn of(server: &TestServer) -> Self {
        let identity = identity("edge-1", "k");
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = SERVER_NAME.try_into().unwrap();
        let socket = ReadAhead::new(SharedSocket::new(stream));
        let connecting = TlsConnector::from(server.proof(&identity, LIFE));
        let stream = connecting.connect(name, socket).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let shaken = builder.max_send_buffer_size(1024).handshake(stream).await;
        let (requests, connection) = shaken.unwrap();
        // How it ends is seen by those who use it.
        let driving = tokio::spawn(async { drop(connection.await) });
        let channel = Channel::new(requests.clone(), TaskTracker::new());
        let origin = "https://server/".parse().unwrap();
        let mut client = agent_service_client::AgentServiceClient::with_origin(channel, origin);
        let (control_tx, control_rx) = mpsc::channel(1);
        let mut request = tonic::Request::new(ReceiverStream::new(control_rx));
        AgentHello::of(&identity, Vec::new()).write(request.metadata_mut());
        let packets = client.connect(request).await.unwrap().into_inner();
        server.until_session("edge-1").await;
        Self {
            requests,
            packets,
            _control_tx: control_tx,
            _driving: AbortOnDropHandle::new(driving),
        }
    }

    /// Answers the next dial with a stream.
    async fn answer(&mut self) -> SendStream<Bytes> {
        let id = loop {
            let packet = patiently(self.packets.message()).await.unwrap().unwrap();
            if let Control::Dial { id, .. } = packet.into() {
                break id;
            }
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://server{CARRY_PATH}"))
            .header(DIAL_HEADER, id.to_header())
            .body(())
            .unwrap();
        let mut requests = self.requests.clone().ready().await.unwrap();
        requests.send_request(request, false).unwrap().1
    }

    /// A client that has been carried and does not read. The kernel keeps little of what it does not.
    async fn connect(&mut self, server: &TestServer) -> RawConnection {
        let (node, target): (NodeName, Target) = (
            "edge-1".parse().unwrap(),
            "127.0.0.1:10250".parse::<SocketAddr>().unwrap().into(),
        );
        let allowed = server.settings.dial_timeout;
        let machine = Client::Machine;
        let dialling = server
            .sessions
            .dial(&node, &target, machine, allowed, Duration::ZERO);
        let (dialled, from_agent) = tokio::join!(dialling, self.answer());
        let (client, accepted) = tcp_pair().await;
        for (socket, buffer) in [(&client, 4096), (&accepted, 4096)] {
            let socket = socket2::SockRef::from(socket);
            socket.set_recv_buffer_size(buffer).unwrap();
            socket.set_send_buffer_size(buffer).unwrap();
        }
        let never = tokio_util::sync::CancellationToken::new();
        let carrying = tokio::spawn(dialled.unwrap().carry(accepted, never));
        RawConnection {
            client,
            from_agent,
            carrying: AbortOnDropHandle::new(carrying),
        }
    }
}

/// Sends each byte in a frame of its own.
async fn send_single_bytes(stream: &mut SendStream<Bytes>, bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    let mut sent = 0;
    while sent < bytes.len() {
        stream.reserve_capacity(bytes.len() - sent);
        let room = patiently(capacity(stream)).await.unwrap();
        for _ in 0..room.expect("the stream is open").min(bytes.len() - sent) {
            let byte = bytes.slice(sent..=sent);
            stream.send_data(byte, false).unwrap();
            sent += 1;
        }
    }
}

/// MiB that this process has resident, other tests' included.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().trim().trim_end_matches("kB").trim();
    number.parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_one_byte_for_clients_that_do_not_read_cost_what_they_hold_and_no_session() {
    let server = TestServer::start(Settings::default()).await;
    let mut agent = RawAgent::of(&server).await;
    let before = resident();
    let mut stopped = Vec::new();
    for seed in 0..2 {
        let mut connection = agent.connect(&server).await;
        send_single_bytes(&mut connection.from_agent, pattern(WINDOW, seed)).await;
        stopped.push(connection);
    }
    // Frames arrive in order: once this one's is through, all those are there.
    let RawConnection {
        mut client,
        mut from_agent,
        carrying: _carrying,
    } = agent.connect(&server).await;
    send_single_bytes(&mut from_agent, vec![7]).await;
    patiently(client.read_exact(&mut [0])).await.unwrap();

    let grown = resident().saturating_sub(before);
    // As frames they would be 135 MB.
    assert!(grown < 80, "{grown} MiB for half a MiB of payload");
    assert!(server.memory.held() <= 2 * WINDOW as u64);
    for (seed, connection) in stopped.iter_mut().enumerate() {
        connection.from_agent.send_data(Bytes::new(), true).unwrap();
        let mut received = Vec::new();
        let reading = connection.client.read_to_end(&mut received);
        patiently(reading).await.unwrap();
        assert!(received == pattern(WINDOW, seed), "connection {seed}");
        connection.client.shutdown().await.unwrap();
    }
    assert_eq!(server.memory.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_single_bytes_to_readers_that_have_stopped_is_heard_once_they_read() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let Carried {
        client,
        target,
        carrying,
    } = server.carried().await;
    let (from_client, from_target) = (pattern(400_000, 1), pattern(400_000, 2));
    for (socket, bytes) in [(&client, &from_client), (&target, &from_target)] {
        socket.set_nodelay(true).unwrap();
        for byte in bytes {
            socket.writable().await.unwrap();
            patiently(write_one(socket, *byte)).await;
        }
    }
    let (mut client, mut target) = (client, target);
    client.shutdown().await.unwrap();
    target.shutdown().await.unwrap();
    let (mut at_client, mut at_target) = (Vec::new(), Vec::new());
    let reading = async {
        tokio::try_join!(
            client.read_to_end(&mut at_client),
            target.read_to_end(&mut at_target),
        )
    };
    patiently(reading).await.unwrap();
    assert!(at_client == from_target && at_target == from_client);
    patiently(carrying).await.unwrap().end.unwrap();
}

async fn write_one(socket: &TcpStream, byte: u8) {
    loop {
        socket.writable().await.unwrap();
        match socket.try_write(&[byte]) {
            Ok(written) => return assert_eq!(written, 1),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

/// Memory for so many connections.
fn for_connections(connections: u64, window: u32) -> Memory {
    let memory = Memory::new(connections * 16 * 1024 / 10 * 16 / 5 * 8 + 256, window);
    assert_eq!(u64::from(memory.most_connections()), connections);
    memory
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_a_dial_is_refused_and_those_that_are_open_go_on() {
    let settings = Settings::default();
    let memory = for_connections(16, settings.first_window());
    let server = TestServer::with_memory(settings, memory).await;
    let _agent = server.agent("edge-1", "k", Policy::new(Vec::new(), Vec::new()));
    server.until_session("edge-1").await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(server.carried().await);
    }
    assert_eq!(server.memory.window(), SMALLEST_WINDOW);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = server.carry(listener.local_addr().unwrap()).await;
    assert_eq!(
        refused.unwrap_err(),
        DialError::OutOfMemory { limit: 16 },
        "one more than there is memory for",
    );
    // The windows are small now, and work in both directions at the same time.
    let bytes = pattern(1 << 20, 3);
    for carried in &mut open {
        let Carried { client, target, .. } = carried;
        exchange(client, target, &bytes, &bytes).await;
    }
    let Carried {
        client,
        target,
        carrying,
    } = open.pop().unwrap();
    drop((client, target));
    patiently(carrying).await.unwrap();
    let _next = server.carried().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_readers_hold_no_more_than_there_is_memory_for() {
    let settings = Settings::default();
    let memory = for_connections(64, settings.first_window());
    let limit = memory.limit();
    let server = TestServer::with_memory(settings, memory).await;
    let _agent = server.agent("edge-1", "k", Policy::new(Vec::new(), Vec::new()));
    server.until_session("edge-1").await;
    let mut stopped = Vec::new();
    for _ in 0..24 {
        let carried = server.carried().await;
        fill(&carried.target).await;
        assert!(server.memory.held() <= limit, "{}", server.memory.held());
        stopped.push(carried);
    }
    for Carried { carrying, .. } in &stopped {
        assert!(!carrying.is_finished(), "a connection was not let be");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_leaves_places_of_a_session_to_others() {
    let settings = Settings {
        max_connections: 8,
        ..Settings::default()
    };
    let (server, _agent) = TestServer::with_agent(settings).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::from(listener.local_addr().unwrap());
    let node: NodeName = "edge-1".parse().unwrap();
    let pod = |last| Client::Address([10, 244, 0, last].into());
    let dial = async |client| {
        let allowed = settings.dial_timeout;
        let dialling = server
            .sessions
            .dial(&node, &target, client, allowed, Duration::ZERO);
        dialling.await
    };
    let mut open = Vec::new();
    for client in [1, 1, 1, 1].map(pod) {
        open.push(dial(client).await.unwrap());
    }
    let refused = dial(pod(1)).await.err().unwrap();
    assert!(
        matches!(refused, DialError::ClientFull { limit: 4, .. }),
        "{refused}"
    );
    for client in [2, 2, 2].map(pod) {
        open.push(dial(client).await.unwrap());
    }
    let refused = dial(pod(3)).await.err().unwrap();
    assert!(
        matches!(refused, DialError::SessionFull { limit: 7, .. }),
        "{refused}"
    );
    open.push(dial(Client::Machine).await.unwrap());
}
