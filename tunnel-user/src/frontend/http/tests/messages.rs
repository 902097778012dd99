//! Messages pass as they are: piece by piece, with trailers, and never as two where they were one.

use super::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn each_piece_arrives_before_the_next_is_sent_both_ways() {
    let stage = Stage::new().await;
    let request = "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut client, mut target, _) = stage.asked(request).await;
    for piece in ["1\r\na\r\n", "2\r\nbc\r\n"] {
        client.say(piece).await;
        assert_eq!(target.until(piece).await, piece);
    }
    // The answer may come before the request is over.
    target
        .say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.head().await;
    for piece in ["1\r\nx\r\n", "2\r\nyz\r\n"] {
        target.say(piece).await;
        assert_eq!(client.until(piece).await, piece);
    }
    client.say("0\r\n\r\n").await;
    assert_eq!(target.until("0\r\n\r\n").await, "0\r\n\r\n");
    target.say("0\r\n\r\n").await;
    assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let stage = Stage::new().await;
    let request = "POST / HTTP/1.1\r\nHost: HOST\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
                   Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n";
    let (mut client, mut target, head) = stage.asked(request).await;
    assert!(head.to_lowercase().contains("te: trailers\r\n"), "{head}");
    let body = target.until("0\r\n").await + &target.until("\r\n\r\n").await;
    assert!(body.to_lowercase().ends_with("x-sum: 7\r\n\r\n"), "{body}");
    target
        .say("HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX-End: 8\r\n\r\n")
        .await;
    client.head().await;
    let body = client.until("0\r\n").await + &client.until("\r\n\r\n").await;
    assert!(body.to_lowercase().ends_with("x-end: 8\r\n\r\n"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_holds_back_its_body_sends_it_once_the_target_wants_it() {
    let stage = Stage::new().await;
    let request =
        "POST / HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let (mut client, mut target, head) = stage.asked(request).await;
    assert!(
        head.to_lowercase().contains("expect: 100-continue"),
        "{head}"
    );
    target.say("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.say("body").await;
    assert_eq!(target.until("body").await, "body");
    target
        .say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_want_the_body_is_heard_before_a_byte_of_it_is_sent() {
    let stage = Stage::new().await;
    let request =
        "POST / HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let (mut client, mut target, _) = stage.asked(request).await;
    target
        .say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.code, 417);
    // Not for the next request: the body of this one may still come.
    assert_eq!(client.rest().await, "");
    target.rest_or_reset().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_body_may_say_how_long_it_would_be() {
    let stage = Stage::new().await;
    for (request, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
    ] {
        let request = format!("{request} / HTTP/1.1\r\nHost: HOST\r\n\r\n");
        let (mut client, mut target, _) = stage.asked(&request).await;
        target.say(answer).await;
        let head = client.head().await;
        assert_eq!(
            head.contains("content-length: 9"),
            answer.contains("Length: 9"),
            "{head}"
        );
        client.get("edge-9:9").await;
        assert_eq!(
            client.status().await.0,
            404,
            "the next answer begins at once"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_readers_could_take_for_two_requests_is_one_or_none() {
    let stage = Stage::new().await;
    // Lengths and codings that contradict each other: chunks count, and nothing follows on that connection.
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n";
    let (length, coding) = ("Content-Length: 60\r\n", "Transfer-Encoding: chunked\r\n");
    for fields in [[length, coding], [coding, length]] {
        let fields = fields.concat();
        let request = format!("POST /one HTTP/1.1\r\nHost: HOST\r\n{fields}\r\n{smuggled}");
        let (mut client, mut target, head) = stage.asked(&request).await;
        let head = head.to_lowercase();
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        assert!(!head.contains("content-length"), "{head}");
        assert_eq!(target.until("0\r\n\r\n").await, "0\r\n\r\n");
        // Nor is this one kept: the next request might be sent on it while it ends, and is not one to send twice.
        target
            .say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.code, 200);
        assert_eq!(client.rest_or_reset().await, "", "the connection is over");
        assert!(stage.is_untouched().await);
    }
    for fields in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: +4",
        "Content-Length: 0x4",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Content-Length : 4",
        "X: y\r\n Transfer-Encoding: chunked",
        "No colon",
        "X: \0",
    ] {
        let mut client = stage.client().await;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\n{fields}\r\n\r\nbody",
            stage.host()
        );
        client.say(&request).await;
        let (code, message) = client.status().await;
        assert_eq!(code, 400, "{fields:?}: {message}");
        assert_eq!(client.rest_or_reset().await, "", "{fields:?}");
    }
    assert!(stage.is_untouched().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_targets_answer_that_could_be_taken_for_two_is_none() {
    let stage = Stage::new().await;
    for fields in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: x",
        "Transfer-Encoding: chunked\r\nNo colon",
    ] {
        let (mut client, mut target, _) = stage.asked("GET / HTTP/1.1\r\nHost: HOST\r\n\r\n").await;
        target
            .say(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nbody"))
            .await;
        assert_eq!(client.status().await.0, 502, "{fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_message_of_unclear_length_is_no_request() {
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    let host = stage.host();
    let coding = "Transfer-Encoding: chunked\r\n";
    let second = format!("GET /two HTTP/1.1\r\nHost: {host}\r\n\r\n");
    client
        .say(&format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\n{coding}{coding}\r\n0\r\n\r\n{second}"
        ))
        .await;
    let heard = client.rest_or_reset().await;
    assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{heard}");
    assert!(heard.starts_with("HTTP/1.1 400 "), "{heard}");
    assert!(stage.is_untouched().await);
}
