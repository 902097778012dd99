use std::{os::unix::net::UnixStream, pin::pin, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split},
    time::timeout,
};

use super::*;
use crate::tunnel::transport::http2::{Segments, Watched};

/// From one end to the other: longer than an answer is waited for in one go.
const DELAY: Duration = Duration::from_millis(800);

fn settings() -> Settings {
    Settings {
        keepalive_interval: Duration::from_secs(5),
        keepalive_timeout: Duration::from_secs(4),
        ..Settings::default()
    }
}

fn silence(of_life: u64, of_path: u64) -> Silence {
    Silence {
        of_life: Duration::from_secs(of_life),
        of_path: Duration::from_secs(of_path),
        loses_large: false,
    }
}

#[test]
fn a_peer_whose_kernel_answers_is_asked_for_longer_and_not_for_ever() {
    let judge = |life, path| Patience::of_agent(&settings()).judge(silence(life, path));
    assert_eq!(judge(10, 1), Verdict::Ask);
    assert_eq!(judge(53, 8), Verdict::Ask);
    assert_eq!(judge(53, 9), Verdict::Gone(Lost::Silent));
    assert_eq!(judge(54, 1), Verdict::Gone(Lost::Silent));
}

#[test]
fn silence_is_first_questioned_and_then_final() {
    let judge = |seconds| Patience::of_agent(&settings()).judge(silence(seconds, seconds));
    assert_eq!(judge(0), Verdict::Fine(Duration::from_secs(5)));
    assert_eq!(judge(3), Verdict::Fine(Duration::from_secs(2)));
    assert_eq!(judge(5), Verdict::Ask);
    assert_eq!(judge(8), Verdict::Ask);
    assert_eq!(judge(9), Verdict::Gone(Lost::Silent));
}

#[test]
fn the_agent_asks_before_the_server_does_and_both_give_up_at_the_same_time() {
    let server = |seconds| Patience::of_server(&settings()).judge(silence(seconds, seconds));
    assert_eq!(server(5), Verdict::Fine(Duration::from_secs(1)));
    assert_eq!(server(6), Verdict::Ask);
    assert_eq!(server(8), Verdict::Ask);
    assert_eq!(server(9), Verdict::Gone(Lost::Silent));
}

#[test]
fn a_path_that_loses_what_is_large_is_given_up_at_once_unless_all_is_lost() {
    let judge = |loses_large, path| {
        Patience::of_agent(&settings()).judge(Silence {
            loses_large,
            ..silence(9, path)
        })
    };
    assert_eq!(judge(true, 2), Verdict::Gone(Lost::LargeSegments));
    assert_eq!(judge(false, 2), Verdict::Ask);
    assert_eq!(judge(true, 9), Verdict::Gone(Lost::Silent));
}

#[test]
fn a_peer_is_stuck_that_was_asked_and_whose_kernel_alone_answers() {
    let stuck =
        |life, path| Patience::of_agent(&settings()).answers_by_kernel_alone(silence(life, path));
    assert!(stuck(7, 1));
    assert!(!stuck(7, 7), "nothing comes");
    assert!(!stuck(4, 0), "it was not asked");
}

/// Both ends of a link that delays whatever passes.
fn far_link() -> (DuplexStream, DuplexStream) {
    let ((one, near), (far, other)) = (duplex(1 << 16), duplex(1 << 16));
    let ((from_one, to_one), (from_other, to_other)) = (split(near), split(far));
    tokio::spawn(delay(from_one, to_other));
    tokio::spawn(delay(from_other, to_one));
    (one, other)
}

async fn delay(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        // Few bytes pass, and seldom: none wait for others here.
        sleep(DELAY).await;
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// A stream of which the kernel tells nothing.
fn watched(io: DuplexStream) -> (Watched<DuplexStream>, Activity) {
    let (socket, _other) = UnixStream::pair().unwrap();
    Watched::new(io, Segments::of(Arc::new(socket), &settings()))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_long_keeps_an_idle_session_alive() {
    let (agent, server) = far_link();
    let ((agent, mut agent_hears), (server, mut server_hears)) = (watched(agent), watched(server));
    let serving = tokio::spawn(async move {
        let mut connection = h2::server::handshake(server).await.unwrap();
        let ping_pong = connection.ping_pong().unwrap();
        let patience = Patience::of_server(&settings());
        let unused = RoundTrip::default();
        tokio::select! {
            lost = until_silent(ping_pong, &mut server_hears, patience, &unused) => Some(lost),
            _ = connection.accept() => None,
        }
    });
    let (_requests, mut connection) = h2::client::handshake(agent).await.unwrap();
    let ping_pong = connection.ping_pong().unwrap();
    let patience = Patience::of_agent(&settings());
    let round_trip = RoundTrip::default();
    round_trip.want();
    let mut silent = pin!(until_silent(
        ping_pong,
        &mut agent_hears,
        patience,
        &round_trip
    ));
    let lasts = timeout(Duration::from_mins(2), async {
        tokio::select! {
            lost = &mut silent => panic!("the agent lost the server: {lost:?}"),
            ended = &mut connection => panic!("the session ended: {ended:?}"),
        }
    });
    assert!(lasts.await.is_err());
    let measured = round_trip.get().unwrap();
    assert_eq!(measured, Duration::from_secs(1), "the longest that counts");
    assert!(!serving.is_finished(), "{:?}", serving.await);
    serving.abort();
}
