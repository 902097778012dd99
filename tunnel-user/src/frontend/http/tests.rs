//! The frontend between clients that speak over sockets and targets that do, with a real tunnel between.

mod stage;

use tokio::io::AsyncReadExt as _;

use self::stage::Stage;
use crate::frontend::testing::patiently;

mod answers;
mod limits;
mod messages;
mod upgrades;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_the_node_that_its_host_names_and_the_answer_comes_back() {
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    let request = format!(
        "GET /exec/a/b?c=d HTTP/1.1\r\nHost: edge-1:{}\r\nX-Tunnel-Proxy-Host: edge-1\r\nConnection: x-own\r\nX-Own: 1\r\n\
         Authorization: Bearer t\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n",
        stage.port
    );
    client.say(&request).await;
    let mut target = stage.accept().await;
    let head = target.head().await;
    assert!(head.starts_with("GET /exec/a/b?c=d HTTP/1.1\r\n"), "{head}");
    let lines: Vec<_> = head.lines().map(str::to_lowercase).collect();
    for line in [
        &format!("host: edge-1:{}", stage.port),
        "authorization: bearer t",
        "x-forwarded-for: 192.0.2.9, 127.0.0.1",
    ] {
        assert!(lines.iter().any(|one| one == line), "{line} in {head}");
    }
    for gone in ["x-tunnel-proxy-host", "x-own", "connection:"] {
        assert!(!head.to_lowercase().contains(gone), "{gone} in {head}");
    }
    target
        .say("HTTP/1.1 203 Fine\r\nX-Its: own\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.code, answer.body.as_str()), (203, "hello"));
    assert_eq!(answer.header("x-its"), Some("own"));
    assert_eq!(answer.header("content-security-policy"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_the_nodes_loopback_is_reached_and_hears_its_own_address() {
    let stage = Stage::on_loopback().await;
    let request = "GET /debug HTTP/1.1\r\nHost: HOST\r\n\r\n";
    let (_client, _target, head) = stage.asked(request).await;
    let host = format!("host: 127.0.0.1:{}\r\n", stage.port);
    assert!(head.contains(&host), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_client_share_a_connection_to_the_target() {
    let stage = Stage::new().await;
    let (mut client, mut other) = (stage.client().await, stage.client().await);
    client.get(&stage.host()).await;
    let mut target = stage.accept().await;
    for _ in 0..20 {
        target.head().await;
        target
            .say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        assert_eq!(client.answer().await.body, "ok");
        // The next one may as well come by another connection of the same client.
        std::mem::swap(&mut client, &mut other);
        client.get(&stage.host()).await;
    }
    target.head().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_the_target_has_closed_is_no_clients_trouble() {
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    client.get(&stage.host()).await;
    let mut target = stage.accept().await;
    target.head().await;
    target
        .say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    client.answer().await;
    // The second request may be on its way already when the target closes.
    client.get(&stage.host()).await;
    target.head().await;
    drop(target);
    let mut target = stage.accept().await;
    target.head().await;
    target
        .say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(client.answer().await.body, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_request_at_once() {
    let stage = Stage::new().await;
    // Before the answer, and in the midst of it.
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    ] {
        let mut client = stage.client().await;
        client.get(&stage.host()).await;
        let mut target = stage.accept().await;
        target.head().await;
        target.say(answer).await;
        if !answer.is_empty() {
            client.until("a\r\n").await;
        }
        drop(client);
        let end = patiently(target.0.read(&mut [0; 16])).await;
        assert!(end.is_err(), "{answer:?}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_off_looks_cut_off() {
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    // Without chunks only the end of the connection tells where an answer ends.
    let request = format!("GET / HTTP/1.0\r\nHost: {}\r\n\r\n", stage.host());
    client.say(&request).await;
    let mut target = stage.accept().await;
    target.head().await;
    target
        .say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
        .await;
    client.until("part").await;
    target.0.set_zero_linger().unwrap();
    drop(target);
    let end = patiently(client.0.read(&mut [0; 16])).await;
    assert!(end.is_err(), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_stop_what_is_under_way_is_answered_and_idle_connections_are_closed() {
    let mut stage = Stage::new().await;
    let (mut idle, mut busy) = (stage.client().await, stage.client().await);
    let mut silent = stage.client().await;
    idle.get("edge-9:80").await;
    idle.answer().await;
    busy.get(&stage.host()).await;
    let mut target = stage.accept().await;
    target.head().await;
    stage.stop();
    assert_eq!(patiently(idle.0.read(&mut [0])).await.unwrap(), 0);
    drop(idle);
    // Nor is it waited for who has not asked for anything.
    assert_eq!(patiently(silent.0.read(&mut [0])).await.unwrap(), 0);
    target
        .say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(busy.answer().await.body, "ok");
    assert_eq!(patiently(busy.0.read(&mut [0])).await.unwrap(), 0);
    drop(busy);
    stage.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_connecting_does_not_keep_the_server_from_ending() {
    let mut stage = Stage::new().await;
    // It is being accepted from.
    stage.client().await.get("edge-9:80").await;
    let crowd = stage.crowd();
    stage.stop();
    stage.ended().await;
    patiently(crowd).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_the_drain_is_reset() {
    let mut stage = Stage::new().await;
    let mut client = stage.client().await;
    client.get(&stage.host()).await;
    let mut target = stage.accept().await;
    target.head().await;
    stage.stop();
    stage.abort();
    assert!(patiently(client.0.read(&mut [0])).await.is_err());
    assert!(patiently(target.0.read(&mut [0])).await.is_err());
    stage.ended().await;
}
