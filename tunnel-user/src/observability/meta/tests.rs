use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn shows_metrics_health_and_readiness() {
    let readiness = Readiness::default();
    let redirect = readiness.register("redirect");
    let any_port = "127.0.0.1:0".parse().unwrap();
    let meta = MetaServer::new(any_port, Registry::default(), readiness)
        .await
        .unwrap();
    let address = meta.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(meta.run(stop.clone()));

    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains(OPEN_METRICS), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds"] {
        let start = format!("process_{name} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
        let value: f64 = value.expect(name).parse().unwrap();
        assert!(value > 0.0, "{name} {value}");
    }
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));

    let unready = get(address, "/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
    assert!(unready.ends_with("[-]redirect starting\n"), "{unready}");
    redirect.ready();
    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.ends_with("[+]redirect ok\n"), "{ready}");

    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_silent_peer_does_not_hold_the_stop_up() {
    let any_port = "127.0.0.1:0".parse().unwrap();
    let meta = MetaServer::new(any_port, Registry::default(), Readiness::default())
        .await
        .unwrap();
    let address = meta.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(meta.run(stop.clone()));
    let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /met").await.unwrap();
    get(address, "/healthz").await;
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_callers_are_bounded_and_keep_no_probe_from_its_answer() {
    let any_port = "127.0.0.1:0".parse().unwrap();
    let meta = MetaServer::new(any_port, Registry::default(), Readiness::default())
        .await
        .unwrap();
    let address = meta.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(meta.run(stop.clone()));
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTT").await.unwrap();
        idle.push(stream);
    }
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    // The first ones had to go; none of those that are left is kept for long.
    for stream in &mut idle {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read_u8());
        ended.await.unwrap().unwrap_err();
    }
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_taken_address_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = MetaServer::new(address, Registry::default(), Readiness::default())
        .await
        .unwrap_err();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains(&address.to_string()), "{text}");
    assert!(text.contains("--meta-port"), "{text}");
    assert!(text.contains("in use"), "{text}");
}
