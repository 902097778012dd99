//! Connections whose client is a part of this program.

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::*;
use crate::tunnel::{FirstBytes, StreamIo, Transfer};

/// A connection to the listener, and whoever carries it.
async fn io(
    server: &TestServer,
    listener: &TcpListener,
) -> (StreamIo, AbortOnDropHandle<Transfer>) {
    let connection = server.dial(listener, FirstBytes::default()).await;
    let (io, carrying) = connection.into_io(CancellationToken::new());
    (io, AbortOnDropHandle::new(tokio::spawn(carrying)))
}

#[tokio::test(flavor = "multi_thread")]
async fn hyper_speaks_http_over_a_stream() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (io, carrying) = io(&server, &listener).await;
    let app = axum::Router::new().route(
        "/echo",
        axum::routing::post(async |body: axum::body::Bytes| body),
    );
    let app = app.layer(axum::extract::DefaultBodyLimit::disable());
    let serving = AbortOnDropHandle::new(tokio::spawn(async move {
        axum::serve(listener, app).await.unwrap();
    }));

    let (mut requests, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    let driving = tokio::spawn(connection);
    for size in [0, 1, 5 << 20] {
        let body = pattern(size, size);
        let request = Request::post("/echo")
            .header("host", "edge-1")
            .body(Full::new(axum::body::Bytes::from(body.clone())))
            .unwrap();
        patiently(requests.ready()).await.unwrap();
        let response = patiently(requests.send_request(request)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let echoed = patiently(response.into_body().collect()).await.unwrap();
        assert!(echoed.to_bytes() == body, "{size} bytes");
    }
    drop(requests);
    patiently(driving).await.unwrap().unwrap();
    let transfer = patiently(carrying).await.unwrap();
    assert!(transfer.end.is_ok(), "{:?}", transfer.end);
    drop(serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_leaves_resets_its_target_and_hears_of_its_targets_reset() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (leaving, _carrying) = io(&server, &listener).await;
    let (mut target, _) = listener.accept().await.unwrap();
    drop(leaving);
    assert!(is_reset(patiently(target.read(&mut [0])).await));

    let (mut staying, _carrying) = io(&server, &listener).await;
    let (target, _) = listener.accept().await.unwrap();
    target.set_zero_linger().unwrap();
    drop(target);
    assert!(is_reset(patiently(staying.read(&mut [0])).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_read_holds_up_its_own_target_only() {
    let (server, _agent) = TestServer::with_agent(Settings::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_stopped, _carrying) = io(&server, &listener).await;
    let (mut target, _) = listener.accept().await.unwrap();
    let endless = AbortOnDropHandle::new(tokio::spawn(async move {
        let more = vec![0; MORE_THAN_BUFFERS];
        target.write_all(&more).await
    }));
    for _ in 0..20 {
        let (mut io, _carrying) = io(&server, &listener).await;
        let (mut other, _) = listener.accept().await.unwrap();
        io.write_all(b"?").await.unwrap();
        patiently(other.read_exact(&mut [0])).await.unwrap();
        other.write_all(b"!").await.unwrap();
        patiently(io.read_exact(&mut [0])).await.unwrap();
    }
    assert!(!endless.is_finished(), "it was not held up");
    let held = server.memory.held();
    assert!(
        held <= u64::from(server.settings.connection_window),
        "{held}"
    );
}
