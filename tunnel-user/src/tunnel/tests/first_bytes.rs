//! What a client says before its dial leaves goes with it, once.

use bytes::Bytes;
use h2::RecvStream;
use tokio_util::sync::CancellationToken;

use super::{
    raw_agent::{RawAgent, dial},
    *,
};
use crate::tunnel::{Client, Connection, FirstBytes, first_bytes::Waiting};

const SAID: &[u8] = b"ClientHello";

/// A client that has said something, and the server's end of it.
async fn client_that_has_said(bytes: &[u8]) -> (TcpStream, TcpStream) {
    let (mut client, accepted) = tcp_pair().await;
    if !bytes.is_empty() {
        client.write_all(bytes).await.unwrap();
        patiently(accepted.readable()).await.unwrap();
    }
    (client, accepted)
}

/// Carries the client, and returns what its agent hears on the stream until its end.
async fn carried(
    connection: Connection,
    (client, accepted): (TcpStream, TcpStream),
    response: h2::client::ResponseFuture,
) -> Vec<u8> {
    let mut client = client;
    let carrying = tokio::spawn(connection.carry(accepted, CancellationToken::new()));
    client.shutdown().await.unwrap();
    let mut stream: RecvStream = patiently(response).await.unwrap().into_body();
    let mut heard = Vec::new();
    while let Some(data) = patiently(stream.data()).await {
        heard.extend_from_slice(&data.unwrap());
    }
    carrying.abort();
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn they_come_with_the_dial_and_not_again_on_the_stream() {
    let server = TestServer::start(Settings::default()).await;
    let mut agent = RawAgent::of(&server).await;
    let (mut client, accepted) = client_that_has_said(SAID).await;
    let mut first = FirstBytes::of(&accepted);
    let answering = async {
        let (id, came) = agent.next_dial().await;
        (came, agent.open(id).await)
    };
    let (dialled, (came, (response, _send))) = tokio::join!(dial(&server, &mut first), answering);
    assert_eq!(came, SAID);
    assert_eq!(server.memory.held(), 0, "they were sent");
    client.write_all(b"more").await.unwrap();
    let heard = carried(dialled.unwrap().into(), (client, accepted), response).await;
    assert_eq!(heard, b"more");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_take_them_gets_them_on_the_stream() {
    let server = TestServer::start(Settings::default()).await;
    let mut agent = RawAgent::that_says(&server, |hello| hello.takes_first_bytes = false).await;
    let (client, accepted) = client_that_has_said(SAID).await;
    let mut first = FirstBytes::of(&accepted);
    let answering = async {
        let (id, came) = agent.next_dial().await;
        (came, agent.open(id).await)
    };
    let (dialled, (came, (response, _send))) = tokio::join!(dial(&server, &mut first), answering);
    assert_eq!(came, Bytes::new());
    let heard = carried(dialled.unwrap().into(), (client, accepted), response).await;
    assert_eq!(heard, SAID);
}

/// The session ends while a dial waits, and the node has another session by then.
async fn dial_of_a_session_that_ends(said: &[u8]) -> Result<(), DialError> {
    let server = TestServer::start(Settings::default()).await;
    let mut leaving = RawAgent::of(&server).await;
    let (client, accepted) = client_that_has_said(said).await;
    let mut first = FirstBytes::of(&accepted);
    let replacing = async {
        let (_, came) = leaving.next_dial().await;
        assert_eq!(came, said);
        let mut staying = RawAgent::of(&server).await;
        drop(leaving);
        // Held up for ever where there is no second dial.
        let again = timeout(Duration::from_secs(1), staying.next_dial()).await;
        let opened = match again {
            Ok((id, came)) => {
                assert_eq!(came, said);
                Some(staying.open(id).await)
            }
            Err(_elapsed) => None,
        };
        (staying, opened)
    };
    let (dialled, _staying) = tokio::join!(dial(&server, &mut first), replacing);
    drop(client);
    dialled.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_has_left_with_them_is_not_tried_again() {
    let ended = dial_of_a_session_that_ends(SAID).await;
    assert!(
        matches!(ended, Err(DialError::SessionEnded(_))),
        "{ended:?}"
    );
    let went_on = dial_of_a_session_that_ends(b"").await;
    assert_eq!(went_on, Ok(()), "nothing can be sent twice");
}

/// What one session has read, and not sent, another one's agent would lose.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_for_one_session_is_not_lost_on_another() {
    let server = TestServer::start(Settings::default()).await;
    let _agent = RawAgent::that_says(&server, |hello| hello.takes_first_bytes = false).await;
    let (_client, accepted) = client_that_has_said(SAID).await;
    let mut first = FirstBytes::of(&accepted);
    let share = server.memory.admit(Client::Machine).unwrap();
    assert_eq!(first.read(&share, &Waiting::default(), None).await, SAID);
    let ended = dial(&server, &mut first).await.map(drop);
    assert!(
        matches!(ended, Err(DialError::SessionEnded(_))),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_hands_them_to_the_target_before_what_follows() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bytes = pattern(300_000, 5);
    // More than goes with a dial is there already.
    let (mut client, accepted) = client_that_has_said(&bytes[..40_000]).await;
    let connection = server.dial(&listener, FirstBytes::of(&accepted)).await;
    let carrying = connection.carry(accepted, CancellationToken::new());
    let (mut target, _) = listener.accept().await.unwrap();
    let writing = async {
        client.write_all(&bytes[40_000..]).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let hearing = async {
        let mut heard = Vec::new();
        target.read_to_end(&mut heard).await.unwrap();
        target.shutdown().await.unwrap();
        heard
    };
    let done = patiently(async { tokio::join!(carrying, writing, hearing) });
    let (transfer, (), heard) = done.await;
    assert!(heard == bytes);
    assert_eq!(transfer.from_socket, bytes.len() as u64);
    assert_eq!(server.memory.held(), 0);
}
