//! What peers can make this process hold: bytes, not payload, and bounded for all of them together.

use std::fs;

use bytes::Bytes;
use h2::SendStream;

use super::{
    raw_agent::{RawAgent, RawConnection},
    *,
};
use crate::{
    model::{NodeName, Target},
    tunnel::{Client, FirstBytes, Memory, grpc::capacity, memory::SMALLEST_WINDOW},
};

const WINDOW: usize = 256 * 1024;

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
    let RawConnection {
        client: mut marked,
        from_agent: mut marks,
        carrying: _carrying,
    } = agent.connect(&server).await;
    let before = resident();
    let mut stopped = Vec::new();
    for seed in 0..2 {
        let mut connection = agent.connect(&server).await;
        for bytes in pattern(WINDOW, seed).chunks(WINDOW / 8) {
            send_single_bytes(&mut connection.from_agent, bytes.to_vec()).await;
            // Frames arrive in order: once this one's is through, all those are there. More of them at once than
            // `SMALL_FRAMES_BUDGET` would end the session while a busy machine lets nobody take them out.
            send_single_bytes(&mut marks, vec![7]).await;
            patiently(marked.read_exact(&mut [0])).await.unwrap();
        }
        stopped.push(connection);
    }

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
        // Its last read holds memory until it has found the end.
        patiently(&mut connection.carrying)
            .await
            .unwrap()
            .end
            .unwrap();
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
        let mut first = FirstBytes::default();
        let sessions = &server.sessions;
        patiently(sessions.dial(&node, &target, client, &mut first, Duration::ZERO)).await
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
