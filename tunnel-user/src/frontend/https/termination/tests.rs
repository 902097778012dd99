//! Clients whose TLS ends at the server, with real TLS on both sides of it and a real tunnel between; and what they
//! might try.

mod stage;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use tokio::io::AsyncWriteExt as _;

use self::stage::{Fault, Stage, user};
use crate::{frontend::testing::patiently, pki::testing::TestCa};

const METRICS: &str = "get nodes/metrics of node edge-1";
const PROXY: &str = "create nodes/proxy of node edge-1";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gets_what_its_user_may_and_the_kubelet_sees_the_server() {
    let stage = Stage::new().await;
    stage.grant("monitors", user("monitor"), &[METRICS]);
    let mut client = stage.client().await;
    let head = "GET /metrics?x=1 HTTP/1.1\r\nHost: HOST\r\nX-Remote-User: admin\r\nAccept: */*";
    client.say(&stage.request("monitors", head)).await;
    let (mut kubelet, who) = stage.kubelet.secured().await;
    let who = who.unwrap();
    assert_eq!(who.name, "tunnel-proxy-client");
    assert!(who.groups.contains(&"culvert:proxy".to_owned()));
    let asked = kubelet.head().await.to_lowercase();
    assert!(
        asked.starts_with("get /metrics?x=1 http/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("accept: */*\r\n"), "{asked}");
    for gone in ["authorization", "monitors", "x-remote", "admin"] {
        assert!(!asked.contains(gone), "{gone} in {asked}");
    }
    kubelet.say(OK).await;
    let answer = client.answer().await;
    assert_eq!(answer.body, "ok");
    assert_eq!(answer.header("content-security-policy"), Some("sandbox"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    // On the same connection, what is not granted.
    client
        .say(&stage.request("monitors", "GET /pods HTTP/1.1\r\nHost: HOST"))
        .await;
    let (code, message) = client.status().await;
    assert_eq!(code, 403, "{message}");
    assert!(
        message.contains("\"monitor\" may not get nodes/pods of node edge-1"),
        "{message}"
    );
    assert!(stage.kubelet.is_untouched().await);
    assert_eq!(
        stage.counted("https_requests_total{code=\"4xx\",reason=\"not_permitted\"}"),
        1
    );
    assert_eq!(
        stage.counted("https_requests_total{code=\"2xx\",reason=\"answered\"}"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_cluster_is_a_user_and_counts_before_a_token() {
    let stage = Stage::new().await;
    stage.grant("masters", user("admin"), &[METRICS, PROXY]);
    stage.grant("unused", user("alice"), &[METRICS]);
    let alice = stage.ca.issue(("alice", "people"), &[], ClientAuth);
    let mut client = stage.connect("127.0.0.1", Some(&alice)).await.unwrap();
    client
        .say("GET /metrics HTTP/1.1\r\nHost: edge-1\r\n\r\n")
        .await;
    let (mut kubelet, _) = stage.kubelet.secured().await;
    kubelet.head().await;
    kubelet.say(OK).await;
    assert_eq!(client.answer().await.code, 200);
    // Neither another user's token, nor a permission of that one, adds anything.
    client
        .say(&stage.request(
            "masters",
            "POST /run/ns/pod/c HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0",
        ))
        .await;
    let (code, message) = client.status().await;
    assert!(code == 403 && message.contains("alice"), "{code} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_proves_nothing_gets_nothing() {
    let stage = Stage::new().await;
    stage.grant("good", user("alice"), &[METRICS]);
    let ask = "GET /metrics HTTP/1.1\r\nHost: edge-1\r\n";
    for credential in [
        "",
        "Authorization: Bearer stale-77\r\n",
        "Authorization: Basic YTpi\r\n",
        "Authorization: Bearer \r\n",
    ] {
        let mut client = stage.client().await;
        client.say(&format!("{ask}{credential}\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.code, 401, "{credential:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(
            answer.body.contains("\"reason\":\"Unauthorized\""),
            "{}",
            answer.body
        );
        assert!(!answer.body.contains("stale-77"), "a token is quoted");
    }
    let twice = "GET /metrics HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer expired";
    assert_eq!(stage.status("good", twice).await.0, 400);
    assert!(stage.kubelet.is_untouched().await && stage.exporter.is_untouched().await);
    assert_eq!(
        stage.counted("https_requests_total{code=\"4xx\",reason=\"unauthenticated\"}"),
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_or_for_servers_is_no_clients() {
    let stage = Stage::new().await;
    let forged = TestCa::new().issue(("admin", "system:masters"), &[], ClientAuth);
    let servers = stage
        .ca
        .issue(("admin", "system:masters"), &["edge-1"], ServerAuth);
    for (number, shown) in (1..).zip([&forged, &servers]) {
        // With TLS 1.3 a client hears of it with its first read.
        if let Ok(mut client) = stage.connect("127.0.0.1", Some(shown)).await {
            let _ = client
                .0
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: edge-1\r\n\r\n")
                .await;
            assert_eq!(client.rest_or_reset().await, "");
        }
        let refused = || stage.counted("https_refusals_total{reason=\"handshake_failed\"}");
        patiently(async {
            while refused() < number {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert!(stage.kubelet.is_untouched().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_a_ca_is_withdrawn_who_came_with_a_certificate_has_to_come_anew() {
    let stage = Stage::new().await;
    stage.grant("monitors", user("monitor"), &[METRICS]);
    stage.grant("unused", user("alice"), &[METRICS]);
    let alice = stage.ca.issue(("alice", "people"), &[], ClientAuth);
    let ask = "GET /metrics HTTP/1.1\r\nHost: edge-1\r\n\r\n";
    let mut idle = stage.connect("127.0.0.1", Some(&alice)).await.unwrap();
    idle.say("GET /pods HTTP/1.1\r\nHost: edge-1\r\n\r\n").await;
    assert_eq!(idle.status().await.0, 403);
    let mut busy = stage.connect("127.0.0.1", Some(&alice)).await.unwrap();
    busy.say(ask).await;
    let (mut kubelet, _) = stage.kubelet.secured().await;
    kubelet.head().await;
    let mut by_token = stage.client().await;
    by_token
        .say(&stage.request("none", "GET /metrics HTTP/1.1\r\nHost: HOST"))
        .await;
    assert_eq!(by_token.status().await.0, 401);

    stage.withdrawn.cancel();
    assert_eq!(idle.rest_or_reset().await, "");
    // As one whose handshake had begun before.
    let mut late = stage.connect("127.0.0.1", Some(&alice)).await.unwrap();
    late.say(ask).await;
    let heard = late.rest_or_reset().await;
    assert!(
        heard.is_empty() || heard.starts_with("HTTP/1.1 401 "),
        "{heard}"
    );
    // What is under way is answered, and no more.
    kubelet.say(OK).await;
    assert_eq!(busy.answer().await.body, "ok");
    assert_eq!(busy.rest_or_reset().await, "");
    // A token is asked about anew all the time.
    by_token
        .say(&stage.request("none", "GET /metrics HTTP/1.1\r\nHost: HOST"))
        .await;
    assert_eq!(by_token.status().await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_own_certificate_is_good_for_nothing_at_other_nodes() {
    let stage = Stage::new().await;
    let edge_2 = stage
        .ca
        .issue(("system:node:edge-2", "system:nodes"), &[], ClientAuth);
    let mut client = stage.connect("127.0.0.1", Some(&edge_2)).await.unwrap();
    for path in ["/metrics", "/pods", "/exec/ns/on-edge-1/c"] {
        client
            .say(&format!("GET {path} HTTP/1.1\r\nHost: edge-1\r\n\r\n"))
            .await;
        let (code, message) = client.status().await;
        assert!(
            code == 403 && message.contains("system:node:edge-2"),
            "{message}"
        );
    }
    assert!(stage.kubelet.is_untouched().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_taken_for_somebody_else() {
    let stage = Stage::new().await;
    stage.grant("monitors", user("monitor"), &[METRICS]);
    for header in [
        "Impersonate-User: admin",
        "impersonate-group: system:masters",
        "Impersonate-Extra-a: b",
    ] {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: HOST\r\n{header}");
        let (code, message) = stage.status("monitors", &head).await;
        assert_eq!(code, 403, "{header}: {message}");
    }
    // Nor by what is to be taken for one hop's own.
    let head = "GET /metrics HTTP/1.1\r\nHost: HOST\r\nConnection: Impersonate-User\r\nImpersonate-User: admin";
    assert_eq!(stage.status("monitors", head).await.0, 403);
    // Nor for the user of a browser, by the page of another site.
    let head = "GET /metrics HTTP/1.1\r\nHost: HOST\r\nSec-Fetch-Site: cross-site";
    assert_eq!(stage.status("monitors", head).await.0, 403);
    assert!(stage.kubelet.is_untouched().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_looks_like_exec_stays_where_its_host_leads_and_another_service_sees_no_certificate()
 {
    let stage = Stage::new().await;
    stage.grant("execs", user("alice"), &[PROXY]);
    let mut client = stage.client().await;
    let exporter = format!(
        "POST /exec/ns/on-edge-1/c HTTP/1.1\r\nHost: edge-1:{}\r\nContent-Length: 0",
        stage.exporter.port
    );
    client.say(&stage.request("execs", &exporter)).await;
    let (mut target, who) = stage.exporter.secured().await;
    assert_eq!(who, None, "who this server is, is for kubelets");
    let asked = target.head().await.to_lowercase();
    assert!(
        asked.starts_with("post /exec/ns/on-edge-1/c ") && !asked.contains("authorization"),
        "{asked}"
    );
    target.say(OK).await;
    assert_eq!(client.answer().await.code, 200);
    assert!(stage.kubelet.is_untouched().await);
    // A host that is no node, on a port that is not the kubelet's.
    let elsewhere = format!(
        "POST /exec/ns/on-edge-1/c HTTP/1.1\r\nHost: any.svc:{}\r\nContent-Length: 0",
        stage.exporter.port
    );
    assert_eq!(stage.status("execs", &elsewhere).await.0, 404);
    // A port that is not open, by whatever is said.
    for host in [
        "edge-1:22",
        "edge-1:10255",
        "any.svc\r\nX-Tunnel-Proxy-Dest: edge-1:22",
    ] {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: {host}");
        assert_eq!(stage.status("execs", &head).await.0, 403, "{host}");
    }
    assert!(stage.kubelet.is_untouched().await && stage.exporter.is_untouched().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pod_in_a_path_leads_to_its_node_where_the_host_names_none() {
    let stage = Stage::new().await;
    stage.grant("logs", user("alice"), &["get nodes/proxy of node edge-1"]);
    let mut client = stage.client().await;
    for host in [
        format!("tunnel.svc:{}", stage.own.port()),
        "tunnel.svc".to_owned(),
        "tunnel.svc:10250".to_owned(),
    ] {
        let head =
            format!("GET /containerLogs/ns/on-edge-1/c?follow=true HTTP/1.1\r\nHost: {host}");
        client.say(&stage.request("logs", &head)).await;
        let (mut kubelet, _) = stage.kubelet.secured().await;
        let asked = kubelet.head().await;
        assert!(
            asked.starts_with("GET /containerLogs/ns/on-edge-1/c?follow=true "),
            "{asked}"
        );
        kubelet
            .say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .await;
        assert_eq!(client.answer().await.code, 200, "{host}");
    }
    let of = |pod: &str| format!("GET /containerLogs/ns/{pod}/c HTTP/1.1\r\nHost: tunnel.svc");
    // Who may not look at its node is told of no pod, nor where one is.
    let nowhere = stage.status("logs", &of("nowhere")).await;
    assert_eq!(nowhere.0, 403);
    for pod in ["on-cloud-1", "on-edge-2"] {
        assert_eq!(stage.status("logs", &of(pod)).await, nowhere, "{pod}");
    }
    let all = [
        "get nodes/proxy of any node",
        "get nodes/proxy of node cloud-1",
    ];
    stage.grant("all", user("bob"), &all);
    assert_eq!(stage.status("all", &of("nowhere")).await.0, 404);
    // Nor is one led to a node that is not tunnelled.
    assert_eq!(stage.status("all", &of("on-cloud-1")).await.0, 404);
    assert!(stage.kubelet.is_untouched().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rogue_kubelet_hears_nothing_and_is_named() {
    let stage = Stage::with(Fault::RogueKubelet).await;
    stage.grant("monitors", user("monitor"), &[METRICS]);
    let asking = stage.status("monitors", "GET /metrics HTTP/1.1\r\nHost: HOST");
    let ((code, message), _rejected) = tokio::join!(asking, stage.kubelet.rejected());
    assert_eq!(code, 502, "{message}");
    for named in [
        "edge-1",
        "its certificate is not trusted",
        "serverTLSBootstrap",
        "--kubelet-ca",
    ] {
        assert!(message.contains(named), "{message} lacks {named}");
    }
    assert_eq!(
        stage.counted("https_requests_total{code=\"5xx\",reason=\"not_verified\"}"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_of_the_cluster_or_a_certificate_of_its_own_nothing_is_done() {
    let stage = Stage::new().await;
    stage.grant("monitors", user("monitor"), &[METRICS]);
    *stage.cluster.is_down.lock().unwrap() = true;
    let (code, message) = stage
        .status("monitors", "GET /metrics HTTP/1.1\r\nHost: HOST")
        .await;
    assert!(
        code == 503 && message.contains("connection refused"),
        "{code} {message}"
    );
    assert!(stage.kubelet.is_untouched().await);
    let stage = Stage::with(Fault::NoCertificate).await;
    stage.grant("monitors", user("monitor"), &[METRICS]);
    let asking = stage.status("monitors", "GET /metrics HTTP/1.1\r\nHost: HOST");
    let ((code, message), mut dialled) = tokio::join!(asking, stage.kubelet.accept());
    assert!(
        code == 503 && message.contains("no certificate for kubelets"),
        "{code} {message}"
    );
    let mut said = Vec::new();
    let _ = patiently(tokio::io::AsyncReadExt::read_to_end(
        &mut dialled,
        &mut said,
    ))
    .await;
    assert!(said.is_empty(), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_becomes_a_connection_of_bytes_with_an_end_in_each_direction() {
    let stage = Stage::new().await;
    stage.grant("execs", user("alice"), &[PROXY]);
    stage.grant("reads", user("reader"), &["get nodes/proxy of node edge-1"]);
    let head = "GET /exec/ns/on-edge-1/c?command=sh HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket";
    // WebSocket begins with GET: to read is not to run.
    assert_eq!(stage.status("reads", head).await.0, 403);
    let mut client = stage.client().await;
    client.say(&stage.request("execs", head)).await;
    let (mut kubelet, who) = stage.kubelet.secured().await;
    assert_eq!(who.unwrap().name, "tunnel-proxy-client");
    kubelet.head().await;
    kubelet.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst").await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(client.until("first").await, "first");
    client.say("input").await;
    patiently(client.0.shutdown()).await.unwrap();
    assert_eq!(kubelet.rest().await, "input");
    kubelet.say("after the half-close").await;
    patiently(kubelet.0.shutdown()).await.unwrap();
    assert_eq!(client.rest().await, "after the half-close");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_the_server_is_its_own_and_one_that_names_a_node_is_the_nodes() {
    let stage = Stage::new().await;
    stage.grant("monitors", user("monitor"), &[METRICS]);
    for name in ["tunnel.svc", "TUNNEL.svc"] {
        let mut client = stage.connect(name, None).await.unwrap();
        client
            .say("GET /metrics HTTP/1.1\r\nHost: edge-1\r\n\r\n")
            .await;
        assert_eq!(client.status().await.0, 401, "{name}");
    }
    // It meets the kubelet's own certificate, which sees the client's.
    let alice = stage.ca.issue(("alice", "people"), &[], ClientAuth);
    let (client, (_, who)) = tokio::join!(
        stage.connect("edge-1", Some(&alice)),
        stage.kubelet.secured()
    );
    assert!(client.is_ok());
    assert_eq!(who.unwrap().name, "alice");
    let unknown = stage.connect("edge-9", None).await;
    assert!(unknown.is_err());
    assert_eq!(
        stage.counted("https_refusals_total{reason=\"unknown_name\"}"),
        1
    );
}
