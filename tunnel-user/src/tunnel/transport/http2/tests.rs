//! What a session's peer may do for months, spoken in frames: `h2` itself would not.

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// More than `h2` lets pass by default in the life of a connection.
const STREAMS: u32 = 1100;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
/// `:method: POST`, `:scheme: https`, `:path: /` of HPACK's static table.
const REQUEST: [u8; 3] = [0x83, 0x87, 0x84];

async fn send(to: &mut DuplexStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    to.write_all(&frame).await.unwrap();
}

/// Kind, flags and stream of the next frame.
async fn next(from: &mut DuplexStream) -> (u8, u8, u32) {
    let mut head = [0; 9];
    from.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    from.read_exact(&mut vec![0; length]).await.unwrap();
    let stream = [head[5], head[6], head[7], head[8]];
    (head[3], head[4], u32::from_be_bytes(stream))
}

async fn until(from: &mut DuplexStream, kind: u8, stream: u32) {
    loop {
        match next(from).await {
            (GOAWAY, ..) => panic!("the session ended before stream {stream} was answered"),
            (found, _, of) if (found, of) == (kind, stream) => return,
            _ => {}
        }
    }
}

/// Resets every stream, and forgets it at once.
async fn reset_all(io: DuplexStream) {
    let mut builder = server(&Settings::default(), 1 << 18);
    builder.reset_stream_duration(Duration::ZERO);
    let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
    while let Some(accepted) = connection.accept().await {
        let Ok((_, mut respond)) = accepted else {
            return;
        };
        respond.send_reset(h2::Reason::CANCEL);
    }
}

#[tokio::test]
async fn what_was_on_its_way_when_a_stream_was_reset_never_ends_the_session() {
    let (mut agent, io) = duplex(1 << 20);
    let serving = tokio::spawn(reset_all(io));
    agent
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    send(&mut agent, SETTINGS, 0, 0, &[]).await;
    for number in 0..STREAMS {
        let stream = 2 * number + 1;
        send(&mut agent, HEADERS, END_HEADERS, stream, &REQUEST).await;
        until(&mut agent, RST_STREAM, stream).await;
        // Forgotten by now, so that it is answered as what no stream is known for.
        send(&mut agent, DATA, 0, stream, b"late").await;
        until(&mut agent, RST_STREAM, stream).await;
    }
    serving.abort();
}

/// A stream's window becomes larger and smaller while its bytes come; then nothing of the session's own window is
/// missing.
#[tokio::test]
async fn windows_of_streams_come_and_go_and_the_sessions_stays() {
    const OPEN: usize = 16;
    let (agent, server) = duplex(1 << 20);
    let serving = tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder.initial_connection_window_size(1 << 20);
        let mut connection = builder.handshake::<_, Bytes>(server).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(take(request.into_body(), respond));
        }
    });
    let (mut requests, connection) = h2::client::handshake(agent).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..OPEN {
        let request = http::Request::post("https://server/").body(()).unwrap();
        let (response, mut stream) = requests.send_request(request, false).unwrap();
        stream.send_data(vec![0; 1 << 20].into(), false).unwrap();
        let taken = tokio::time::timeout(Duration::from_secs(10), response);
        open.push((taken.await.unwrap().unwrap(), stream));
    }
    drop(open);
    driving.abort();
    serving.abort();
}

/// Takes a MiB, and then answers.
async fn take(mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let flow_control = body.flow_control();
    flow_control.adjust_target_window_size(1 << 20).unwrap();
    let mut taken = 0;
    while taken < 1 << 20 {
        let data = body.data().await.unwrap().unwrap();
        let flow_control = body.flow_control();
        if taken == 0 {
            flow_control.adjust_target_window_size(-(1 << 20)).unwrap();
        }
        flow_control.release_capacity(data.len()).unwrap();
        taken += data.len();
    }
    let flow_control = body.flow_control();
    assert!(flow_control.adjust_target_window_size(-(1 << 20)).is_err());
    assert!(
        flow_control
            .adjust_target_window_size(i32::MAX as isize)
            .is_err()
    );
    respond
        .send_response(http::Response::new(()), false)
        .unwrap();
    while body.data().await.is_some() {}
}
