//! What clients may cost.

use super::stage::Stage;
use crate::frontend::http::{HEAD_FIELDS, HEAD_SIZE};

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused_with_the_limit() {
    let stage = Stage::new().await;
    let long = "x".repeat(HEAD_SIZE);
    let many = "X: y\r\n".repeat(HEAD_FIELDS);
    for (request, code, named) in [
        (
            format!("GET / HTTP/1.1\r\nHost: HOST\r\nX: {long}\r\n\r\n"),
            431,
            HEAD_SIZE,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: HOST\r\n{many}\r\n"),
            431,
            HEAD_FIELDS,
        ),
        // More than could ever be a head: nothing of it is kept.
        (
            format!("GET / HTTP/1.1\r\nX: {}", long.repeat(20)),
            431,
            HEAD_SIZE,
        ),
    ] {
        let mut client = stage.client().await;
        client.say(&request.replace("HOST", &stage.host())).await;
        let (answered, message) = client.status().await;
        assert_eq!(answered, code, "{message}");
        assert!(message.contains(&named.to_string()), "{message}");
    }
    assert_eq!(stage.counted("4xx", "too_large"), Some(3));
    assert!(stage.is_untouched().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_told_so() {
    let stage = Stage::new().await;
    for said in [
        "\x16\x03\x01\x02\x00\x01\x00",
        "SSH-2.0-x\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/3.0\r\n\r\n",
    ] {
        let mut client = stage.client().await;
        client.say(said).await;
        assert_eq!(client.status().await.0, 400, "{said:?}");
    }
}
