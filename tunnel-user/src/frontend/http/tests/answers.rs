//! What a client hears where its target says nothing.

use super::stage::Stage;
use crate::frontend::testing::patiently;

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_status_that_names_node_and_cause() {
    let stage = Stage::new().await;
    let host = stage.host();
    for (host, code, named) in [
        ("edge-9:9", 404, "edge-9"),
        ("192.0.2.99:9", 404, "192.0.2.99"),
        ("edge-2:9", 503, "no agent of node edge-2 is connected"),
        ("edge-1:9", 502, "connection refused"),
        ("edge-1:10250", 403, "port 10250 of node edge-1"),
        ("edge-1", 403, "port 80 of node edge-1"),
        ("edge_1", 400, "edge_1"),
        (&format!("{host}\r\nHost: {host}"), 400, "Host"),
        (
            &format!("{host}\r\nX-Tunnel-Proxy-Host: edge-9"),
            404,
            "edge-9",
        ),
        (
            &format!("{host}\r\nX-Tunnel-Proxy-Dest: 127.0.0.1"),
            400,
            "X-Tunnel-Proxy-Dest",
        ),
    ] {
        // One connection each: the last ones are closed.
        let mut client = stage.client().await;
        client.get(host).await;
        let (answered, message) = client.status().await;
        assert_eq!(answered, code, "{host}: {message}");
        assert!(message.contains(named), "{host}: {message}");
    }
    assert!(stage.is_untouched().await);
    assert_eq!(stage.counted("4xx", "malformed"), Some(3));
    assert_eq!(stage.counted("5xx", "no_session"), Some(1));
    assert_eq!(stage.counted("5xx", "dial_failed"), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_the_connection_to_the_next_request() {
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    for _ in 0..3 {
        client.get("edge-2:9").await;
        assert_eq!(client.status().await.0, 503);
    }
    client.get(&stage.host()).await;
    stage.accept().await.head().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_for_a_proxy_is_refused() {
    let stage = Stage::new().await;
    for request in [
        "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET https://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = stage.client().await;
        client.say(&request.replace("HOST", &stage.host())).await;
        assert_eq!(client.status().await.0, 400, "{request}");
    }
    assert!(stage.is_untouched().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_proxy_setting_works_as_well() {
    let stage = Stage::new().await;
    let request = "GET http://HOST/metrics?a HTTP/1.1\r\nHost: other:1\r\nProxy-Connection: keep-alive\r\n\r\n";
    let (_client, _target, head) = stage.asked(request).await;
    assert!(head.starts_with("GET /metrics?a HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: {}\r\n", stage.host())),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_speak_http_is_named() {
    let stage = Stage::new().await;
    for said in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let request = "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n";
        let (mut client, mut target, _) = stage.asked(request).await;
        target.say(said).await;
        drop(target);
        let (code, message) = client.status().await;
        assert_eq!(code, 502, "{said:?}: {message}");
        assert!(
            message.contains("edge-1") && message.contains(&stage.port.to_string()),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_takes_its_request_back_and_the_next_one_is_served() {
    let stage = Stage::new().await;
    for _ in 0..50 {
        let (client, mut target, _) = stage.asked("GET / HTTP/1.1\r\nHost: HOST\r\n\r\n").await;
        drop(client);
        patiently(target.rest_or_reset()).await;
    }
    let (mut client, mut target, _) = stage.asked("GET / HTTP/1.1\r\nHost: HOST\r\n\r\n").await;
    target
        .say("HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")
        .await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "));
}
