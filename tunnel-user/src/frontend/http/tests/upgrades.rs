//! Connections that change their protocol.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::stage::Stage;
use crate::frontend::testing::{Wire, patiently};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: HOST\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
const GRANT: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";

/// Both ends, after the target has sent some bytes with its agreement.
async fn upgraded(stage: &Stage) -> (Wire, Wire) {
    let (mut client, mut target, head) = stage.asked(ASK).await;
    let head = head.to_lowercase();
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"));
    target.say(&format!("{GRANT}early")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.to_lowercase().contains("upgrade: websocket\r\n"),
        "{head}"
    );
    assert_eq!(client.until("early").await, "early");
    (client, target)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_direction_goes_on_until_its_own_end() {
    let stage = Stage::new().await;
    for client_ends_first in [true, false] {
        let (client, target) = upgraded(&stage).await;
        let (mut first, mut second) = if client_ends_first {
            (client, target)
        } else {
            (target, client)
        };
        first.say("question").await;
        first.0.shutdown().await.unwrap();
        assert_eq!(second.rest().await, "question");
        second.say("answer").await;
        drop(second);
        assert_eq!(first.rest().await, "answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_sends_with_its_request_is_not_lost() {
    let stage = Stage::new().await;
    let (mut client, mut target, _) = stage.asked(&format!("{ASK}at once")).await;
    target.say(GRANT).await;
    assert_eq!(target.until("at once").await, "at once");
    client.head().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_either_end_is_one_of_the_other() {
    let stage = Stage::new().await;
    for client_resets in [true, false] {
        let (client, target) = upgraded(&stage).await;
        let (resets, mut other) = if client_resets {
            (client, target)
        } else {
            (target, client)
        };
        resets.0.set_zero_linger().unwrap();
        drop(resets);
        let end = patiently(other.0.read(&mut [0])).await;
        assert!(end.is_err(), "client resets: {client_resets}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_declines_answers_as_any_other() {
    let stage = Stage::new().await;
    let (mut client, mut target, _) = stage.asked(ASK).await;
    target
        .say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.code, answer.body.as_str()), (403, "no"));
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_pass_both_ways_at_once() {
    const SIZE: usize = 8 << 20;
    let stage = Stage::new().await;
    let (client, target) = upgraded(&stage).await;
    let bytes: Vec<u8> = (0..251).cycle().take(SIZE).collect();
    let exchange = async |end: Wire| {
        let (mut read, mut write) = end.0.into_split();
        let sending = async {
            write.write_all(&bytes).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let ((), read) = tokio::join!(sending, read.read_to_end(&mut heard));
        read.unwrap();
        assert!(heard == bytes, "{} of {SIZE} bytes", heard.len());
    };
    patiently(async { tokio::join!(exchange(client), exchange(target)) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_drain_resets_both_ends() {
    let mut stage = Stage::new().await;
    let (mut client, mut target) = upgraded(&stage).await;
    stage.stop();
    client.say("still").await;
    target.until("still").await;
    stage.abort();
    assert!(patiently(client.0.read(&mut [0])).await.is_err());
    assert!(patiently(target.0.read(&mut [0])).await.is_err());
    stage.ended().await;
}
