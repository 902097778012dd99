use std::{collections::BTreeMap, sync::Arc};

use time::{Duration, OffsetDateTime, macros::datetime};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    model::GatePolicy,
    observability::{
        admin::{AdminError, AdminServer, MakeStatus, OnConflict},
        status::{
            ApprovalStatus, CertificateStatus, ClusterStatus, ConditionStatus, NodeStatus,
            PublishedKind, PublishedStatus, RedirectStatus, Role, ServiceStatus, SessionStatus,
        },
    },
};

const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

fn condition(name: &str, reason: Option<&str>) -> ConditionStatus {
    ConditionStatus {
        name: name.to_owned(),
        ready: reason.is_none(),
        reason: reason.map(str::to_owned),
    }
}

fn node(name: &str, addresses: &[&str], connected: bool) -> NodeStatus {
    NodeStatus {
        name: name.parse().unwrap(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        connected,
        closed_gate: (!connected).then_some(GatePolicy::Refuse),
    }
}

fn redirect() -> RedirectStatus {
    RedirectStatus {
        listeners: vec![
            "10.77.0.1:10270".parse().unwrap(),
            "[fd00:77::1]:10270".parse().unwrap(),
        ],
        chosen: BTreeMap::from([(
            "10.77.0.1:10270".parse().unwrap(),
            "on eth0, which has the default route".to_owned(),
        )]),
        gate_open: true,
        closed_gate: GatePolicy::Bypass,
        cgroup: "/sys/fs/cgroup".into(),
        pinned_at: "/sys/fs/bpf/culvert/v1".into(),
        ports: vec![10250, 10255],
        served_by: BTreeMap::from([
            ("host".to_owned(), "127.64.0.0/15".to_owned()),
            ("pods".to_owned(), "tuple".to_owned()),
        ]),
        client_namespaces: BTreeMap::from([("tuple".to_owned(), 2)]),
        yurt_tunnel_rules: vec!["nf_tables, IPv4: TUNNEL-PORT, TUNNEL-PORT-10250".to_owned()],
        entries: 3,
        services: vec![
            ServiceStatus {
                service: "monitoring/kubelet".to_owned(),
                address: "10.96.0.5:10250".parse().unwrap(),
                endpoints: 3,
                tunnelled: Some(2),
                caught: true,
            },
            ServiceStatus {
                service: "monitoring/node-exporter".to_owned(),
                address: "[fd00:96::5]:9100".parse().unwrap(),
                endpoints: 70000,
                tunnelled: None,
                caught: false,
            },
        ],
        services_trouble: Some("cannot follow Services: forbidden".to_owned()),
        counters: BTreeMap::from([
            ("redirected".to_owned(), 1234),
            ("gate_closed".to_owned(), 0),
        ]),
    }
}

fn server_report() -> StatusReport {
    let mut report = StatusReport::new(Role::Server, NOW - Duration::hours(26), NOW);
    "0.0.0".clone_into(&mut report.version);
    report.pid = 42;
    report.conditions = vec![
        condition("agents", None),
        condition("redirect", Some("no cgroup2")),
    ];
    report.nodes = vec![
        node("edge-1", &["10.78.0.11", "fd00:78::11"], true),
        node("edge-long-name-2", &["10.78.0.12"], false),
    ];
    report.sessions = vec![SessionStatus {
        node: "edge-1".parse().unwrap(),
        remote: "192.0.2.7:51234".parse().unwrap(),
        connected_at: NOW - Duration::seconds(83),
        open_connections: 3,
        bytes_to_target: 512,
        bytes_to_client: 5 << 30,
        peer_version: Some("0.0.0".to_owned()),
    }];
    report.redirect = Some(redirect());
    report.certificates = vec![
        CertificateStatus {
            name: "ca".to_owned(),
            subject: None,
            valid_from: NOW - Duration::days(1),
            expires_at: NOW + Duration::days(3649),
        },
        CertificateStatus {
            name: "server".to_owned(),
            subject: Some("CN=culvert-server".to_owned()),
            valid_from: NOW - Duration::days(9),
            expires_at: NOW - Duration::days(1),
        },
    ];
    report.cluster = Some(ClusterStatus {
        confirmed_at: Some(NOW - Duration::seconds(90)),
        trouble: Some("connection refused".to_owned()),
        leader: Some("control-2".to_owned()),
        leading: false,
        servers: 2,
        events_lost: 5,
        approvals: ApprovalStatus {
            enabled: true,
            approved: 3,
            denied: 1,
            pending: 0,
        },
        published: vec![
            PublishedStatus {
                kind: PublishedKind::Names,
                object: "kube-system/yurt-tunnel-nodes".to_owned(),
                entries: 4,
                bytes: Some(100),
                limit: Some(1 << 20),
                written_at: Some(NOW - Duration::seconds(7)),
                writes: 2,
                troubles: vec!["no ClusterIP".to_owned(), "nearly full".to_owned()],
            },
            PublishedStatus {
                kind: PublishedKind::ServicePorts,
                object: "kube-system/x-tunnel-server-internal-svc".to_owned(),
                entries: 2,
                bytes: None,
                limit: None,
                written_at: None,
                writes: 0,
                troubles: Vec::new(),
            },
        ],
    });
    report
}

#[test]
fn a_server_is_shown_like_this() {
    assert_eq!(render::table(&server_report()), include_str!("server.txt"));
}

#[test]
fn a_process_with_nothing_to_show_says_so() {
    let mut report = StatusReport::new(Role::Agent, NOW, NOW);
    "0.0.0".clone_into(&mut report.version);
    report.pid = 42;
    assert_eq!(render::table(&report), include_str!("agent.txt"));
}

#[test]
fn a_report_survives_its_json() {
    let json = serde_json::to_string(&server_report()).unwrap();
    assert_eq!(
        serde_json::from_str::<StatusReport>(&json).unwrap(),
        server_report()
    );
}

fn make_status() -> MakeStatus {
    Arc::new(|| Box::pin(async { server_report() }))
}

#[tokio::test]
async fn a_report_comes_over_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let admin = AdminServer::new(&run_dir, OnConflict::Respect, make_status())
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(admin.run(stop.clone()));
    let socket = socket_path(&run_dir);
    assert_eq!(fetch(&socket).await.unwrap(), server_report());
    let mode = std::os::unix::fs::PermissionsExt::mode(&socket.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert!(!socket.exists(), "the socket's file was left behind");
    let text = fetch(&socket).await.unwrap_err().to_string();
    assert!(text.contains(socket.to_str().unwrap()), "{text}");
    assert!(text.contains("start `culvert server`"), "{text}");
}

#[test]
fn what_is_not_ready_is_named_with_its_reason() {
    let mut report = server_report();
    let error = ready(&report).unwrap_err().to_string();
    assert_eq!(error, "not ready: redirect: no cgroup2");
    report.conditions.retain(|condition| condition.ready);
    ready(&report).unwrap();
}

#[tokio::test]
async fn a_dead_process_s_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let socket = socket_path(dir.path());
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let text = fetch(&socket).await.unwrap_err().to_string();
    assert!(text.contains("nothing is running behind"), "{text}");
    AdminServer::new(dir.path(), OnConflict::Respect, make_status())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_live_process_is_named_and_left_alone_unless_it_hands_over() {
    let dir = tempfile::tempdir().unwrap();
    let first = AdminServer::new(dir.path(), OnConflict::Respect, make_status())
        .await
        .unwrap();
    let refusal = AdminServer::new(dir.path(), OnConflict::Respect, make_status()).await;
    let refusal = refusal.map(drop).unwrap_err();
    assert!(
        matches!(refusal, AdminError::AlreadyRunning { .. }),
        "{refusal:?}"
    );
    let text = refusal.to_string();
    let pid = std::process::id();
    assert!(
        text.starts_with(&format!("already running (pid {pid}): ")),
        "{text}"
    );
    assert!(text.contains("--run-dir"), "{text}");

    let second = AdminServer::new(dir.path(), OnConflict::Replace, make_status())
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(second.run(stop.clone()));
    drop(first);
    fetch(&socket_path(dir.path()))
        .await
        .expect("the first removed the second's socket");
    stop.cancel();
    serving.await.unwrap().unwrap();
}
