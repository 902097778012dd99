mod cluster_identity;
mod dialer;
mod expiry;
mod first_bytes;
mod handshakes;
mod lifetime;
mod memory;
mod programs;
mod raw_agent;
mod relay;
mod revocation;
mod several_servers;

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    DialError, Settings,
    agent::{Policy, ServerState},
    testing::{Carried, PATIENCE, TestServer, all, snapshot, tcp_pair},
};

/// More than all windows and socket buffers on the way hold together.
const MORE_THAN_BUFFERS: usize = 64 << 20;

async fn patiently<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work)
        .await
        .expect("it did not happen in time")
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    let byte = |i| u8::try_from((i * 31 + seed) % 251).unwrap();
    (0..length).map(byte).collect()
}

fn is_reset<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_arrive_unchanged_and_each_direction_ends_on_its_own() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let Carried {
        mut client,
        mut target,
        carrying,
    } = server.carried().await;
    let (request, answer) = (pattern(3 << 20, 1), pattern(5 << 20, 2));

    let asking = async {
        client.write_all(&request).await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        received
    };
    let answering = async {
        let mut received = Vec::new();
        target.read_to_end(&mut received).await.unwrap();
        // The client has closed its half; ours still works.
        target.write_all(&answer).await.unwrap();
        target.shutdown().await.unwrap();
        received
    };
    let (client_got, target_got) = patiently(async { tokio::join!(asking, answering) }).await;
    assert!(target_got == request && client_got == answer);
    let transfer = patiently(carrying).await.unwrap();
    assert!(transfer.end.is_ok(), "{:?}", transfer.end);
    assert_eq!(transfer.from_socket, request.len() as u64);
    assert_eq!(transfer.to_socket, answer.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_speaks_first_is_heard_before_the_client_says_anything() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let Carried {
        mut client,
        mut target,
        carrying: _carrying,
    } = server.carried().await;
    target.write_all(b"220 ready").await.unwrap();
    let mut greeting = [0; 9];
    patiently(client.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_pieces_do_not_wait_for_the_clients_acknowledgement() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let Carried {
        mut client,
        mut target,
        carrying: _carrying,
    } = server.carried().await;
    target.set_nodelay(true).unwrap();
    let mut waits = Vec::new();
    for _ in 0..60 {
        client.write_all(b"?").await.unwrap();
        patiently(target.read_exact(&mut [0])).await.unwrap();
        for piece in [b"1", b"2"] {
            let started = Instant::now();
            target.write_all(piece).await.unwrap();
            let mut received = [0];
            patiently(client.read_exact(&mut received)).await.unwrap();
            assert_eq!(&received, piece);
            waits.push(started.elapsed());
        }
    }
    // A client that asks and is answered acknowledges 40 ms later, to do it with its next question:
    // each second piece would wait for that. On a busy machine any may be late, but not most.
    let mut second: Vec<_> = waits.into_iter().skip(1).step_by(2).collect();
    second.sort_unstable();
    assert!(second[20] < Duration::from_millis(30), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_just_before_the_close_arrives() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    for length in [1, 1000, 64 << 10, 1 << 20] {
        let Carried {
            mut client,
            mut target,
            carrying: _carrying,
        } = server.carried().await;
        client.write_all(&pattern(length, 7)).await.unwrap();
        drop(client);
        let mut received = Vec::new();
        patiently(target.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received.len(), length);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_on_either_side_is_a_reset_on_the_other() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let Carried {
        client,
        mut target,
        carrying,
    } = server.carried().await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(is_reset(patiently(target.read(&mut [0])).await));
    assert!(patiently(carrying).await.unwrap().end.is_err());

    let Carried {
        mut client,
        target,
        carrying: _carrying,
    } = server.carried().await;
    target.set_zero_linger().unwrap();
    drop(target);
    assert!(is_reset(patiently(client.read(&mut [0])).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_gets_through_although_the_other_side_has_stopped_reading() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let Carried {
        client,
        mut target,
        carrying,
    } = server.carried().await;
    fill(&client).await;
    client.set_zero_linger().unwrap();
    drop(client);
    patiently(carrying).await.unwrap().end.unwrap_err();
    // What had arrived before is still there to be read; then comes the reset.
    let mut buffer = vec![0; 1 << 16];
    let end = loop {
        match patiently(target.read(&mut buffer)).await {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    assert!(is_reset(end));
}

/// Writes until nothing moves any more.
async fn fill(stream: &TcpStream) {
    let chunk = vec![0; 1 << 16];
    let mut written = 0;
    while timeout(Duration::from_millis(300), stream.writable())
        .await
        .is_ok()
    {
        match stream.try_write(&chunk) {
            Ok(taken) => written += taken,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(written < MORE_THAN_BUFFERS, "nothing holds the writer back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_reader_leaves_the_others_alone() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let mut stopped = Vec::new();
    for _ in 0..8 {
        let carried = server.carried().await;
        fill(&carried.client).await;
        fill(&carried.target).await;
        stopped.push(carried);
    }
    let Carried {
        mut client,
        mut target,
        carrying: _carrying,
    } = server.carried().await;
    let (there, back) = (pattern(8 << 20, 1), pattern(8 << 20, 2));
    exchange(&mut client, &mut target, &there, &back).await;
}

/// Sends at the same time from either end, and compares what arrives.
async fn exchange(client: &mut TcpStream, target: &mut TcpStream, there: &[u8], back: &[u8]) {
    let (mut got_there, mut got_back) = (vec![0; there.len()], vec![0; back.len()]);
    let (mut client_read, mut client_write) = client.split();
    let (mut target_read, mut target_write) = target.split();
    let moving = async {
        tokio::try_join!(
            client_write.write_all(there),
            target_write.write_all(back),
            target_read.read_exact(&mut got_there),
            client_read.read_exact(&mut got_back),
        )
    };
    patiently(moving).await.unwrap();
    assert!(got_there == there && got_back == back);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_share_one_session() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = echo.local_addr().unwrap();
    let echoing = tokio::spawn(async move {
        let tasks = TaskTracker::new();
        while let Ok((mut stream, _)) = echo.accept().await {
            tasks.spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    let mut open = Vec::new();
    for i in 0..1000 {
        open.push((i, server.carry(address).await.unwrap().0));
    }
    let clients = TaskTracker::new();
    for (i, client) in open {
        clients.spawn(send_and_compare(client, i * 97 % 40_000));
    }
    all(clients).await;
    echoing.abort();
}

async fn send_and_compare(mut client: TcpStream, length: usize) {
    let sent = pattern(length, length);
    let mut received = Vec::new();
    let (mut read, mut write) = client.split();
    let sending = async {
        write.write_all(&sent).await?;
        write.shutdown().await
    };
    tokio::try_join!(sending, read.read_to_end(&mut received)).unwrap();
    assert!(received == sent, "connection of {length} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_fails_says_why() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = server.carry(closed).await.unwrap_err();
    let expected = format!("dial tcp {closed}: connect: connection refused");
    assert_eq!(refused, DialError::Refused(expected));

    let neighbour: SocketAddr = "192.0.2.1:10250".parse().unwrap();
    let denied = server.carry(neighbour).await.unwrap_err().to_string();
    assert!(
        denied.contains("not allowed by the agent's policy"),
        "{denied}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_refused_until_one_ends() {
    let settings = Settings {
        max_connections: 2,
        ..Settings::default()
    };
    let (server, _agent) = TestServer::with_agent(settings).await;
    let first = server.carried().await;
    let _second = server.carried().await;
    let (listener, _) = tcp_pair().await;
    let third = server
        .carry(listener.local_addr().unwrap())
        .await
        .unwrap_err();
    assert!(
        matches!(third, DialError::SessionFull { limit: 2, .. }),
        "{third}"
    );
    drop((first.client, first.target));
    patiently(first.carrying).await.unwrap();
    let _third = server.carried().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_dial_fails_at_once_when_its_session_ends() {
    let settings = Settings {
        dial_timeout: PATIENCE * 2,
        ..Settings::default()
    };
    let (server, agent) = TestServer::with_agent(settings).await;
    // A full accept queue answers nothing: the dial stays pending.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _queued = TcpStream::connect(address).await.unwrap();

    let started = Instant::now();
    let dialling = server.carry(address);
    let killing = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        agent.end().await;
    };
    let (dialled, ()) = patiently(async { tokio::join!(dialling, killing) }).await;
    assert!(matches!(dialled.unwrap_err(), DialError::SessionEnded(_)));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_a_dial_says_so() {
    let server = TestServer::start(Settings::default()).await;
    let target = "127.0.0.1:1".parse().unwrap();
    assert!(matches!(
        server.carry(target).await.unwrap_err(),
        DialError::NoSession(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_registers_only_what_the_server_knows_it_by() {
    let server = TestServer::start(Settings::default()).await;
    let policy = || Policy::new(Vec::new(), Vec::new());
    let stranger = server.agent("edge-2", "k", policy());
    assert!(refusal(&stranger).await.contains("is not among the nodes"));
    let former = server.agent("edge-1", "former", policy());
    assert!(refusal(&former).await.contains("was enrolled anew"));
    assert!(server.sessions.nodes().is_empty());
}

/// What the server told an agent that it did not let in.
async fn refusal(agent: &super::testing::TestAgent) -> String {
    let mut changes = agent.servers.changes();
    loop {
        let links = agent.servers.reports();
        if let Some(ServerState::Down(Some(reason))) = links.first().map(|link| link.state.clone())
        {
            return reason;
        }
        patiently(changes.changed()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_removed_loses_its_session_and_what_it_carries() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let following = server.sessions.clone();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let following = tokio::spawn(following.follow(server.snapshots.subscribe(), shutdown.clone()));
    let Carried {
        mut client,
        target: _target,
        carrying: _carrying,
    } = server.carried().await;
    server.snapshots.send_replace(snapshot(&[]));
    server.until(|sessions| sessions.nodes().is_empty()).await;
    assert!(is_reset(patiently(client.read(&mut [0])).await));
    shutdown.cancel();
    following.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_reset_what_they_carry_when_the_session_dies() {
    let (server, agent) = TestServer::with_agent(Settings::default()).await;
    let Carried {
        mut client,
        mut target,
        carrying,
    } = server.carried().await;
    agent.end().await;
    assert!(is_reset(patiently(client.read(&mut [0])).await));
    assert!(patiently(carrying).await.unwrap().end.is_err());
    assert!(is_reset(patiently(target.read(&mut [0])).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_drains_finishes_what_it_carries() {
    let (server, agent) = TestServer::with_agent(Settings::default()).await;
    let Carried {
        mut client,
        mut target,
        carrying,
    } = server.carried().await;
    agent.drain.cancel();
    let there = pattern(4 << 20, 3);
    let sending = async {
        client.write_all(&there).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let ((), read) = tokio::join!(sending, patiently(target.read_to_end(&mut received)));
    read.unwrap();
    target.shutdown().await.unwrap();
    drop((target, client));
    assert!(received == there);
    assert!(patiently(carrying).await.unwrap().end.is_ok());
    patiently(agent.running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_asked_to_move_comes_back_and_finishes_what_it_carries() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let Carried {
        mut client,
        mut target,
        carrying: _carrying,
    } = server.carried().await;
    server.sessions.drain();
    server
        .until(|sessions| sessions.reports().iter().any(|report| !report.retiring))
        .await;
    client.write_all(b"still").await.unwrap();
    let mut received = [0; 5];
    patiently(target.read_exact(&mut received)).await.unwrap();
    let _new = server.carried().await;
}
