//! Clients that name a node by TLS: they are carried to its kubelet as they are, or hear why not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::path::PathBuf;
use std::time::Duration;

use culvert_tests::report::Connects;
use culvert_tests::{Daemon, Launch, NetNs, command, scale};

use crate::restarts::finish;
use crate::stage::{NODE, PATIENCE, Stage, accept, end_of};

/// The HTTPS port of the control plane.
pub(crate) const HTTPS: &str = "10.77.0.1:10263";
pub(crate) const ON: &str = "--https-port 10263";
/// What a Go program says first that wants `edge-1`, with post-quantum keys.
pub(crate) const HELLO: &[u8] =
    include_bytes!("../../tunnel-user/src/frontend/https/client_hello/testdata/go-named.bin");
/// The beginning of a hello of 514 bytes, which never comes.
pub(crate) const HALF: &str = "\u{16}\u{3}\u{1}\u{2}\u{2}\u{1}";

const OPENSSL: &str = "[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
subjectAltName = DNS:edge-1
";

/// A key and a certificate of its own for this name.
pub(crate) fn certificate(stage: &Stage, subject: &str) -> [PathBuf; 2] {
    let settings = stage.path("openssl.cnf");
    fs::write(&settings, OPENSSL).unwrap();
    let files = ["key", "certificate"].map(|what| stage.path(&format!("{subject}-{what}.pem")));
    let [key, certificate] = files.each_ref().map(|file| file.to_str().unwrap());
    command::run_line(&format!(
        "openssl req -x509 -config {} -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 \
         -subj /CN={subject} -keyout {key} -out {certificate}",
        settings.to_str().unwrap()
    ))
    .unwrap();
    files
}

/// A real TLS server that is no part of Culvert stands for the kubelet: it asks for clients' certificates.
pub(crate) fn kubelet(stage: &Stage) -> Daemon {
    let ([key, own], [_, clients]) = (
        certificate(stage, "kubelet"),
        certificate(stage, "prometheus"),
    );
    let launch = Launch::new(stage.edge(), "openssl")
        .words(&format!("s_server -accept {NODE} -www -Verify 1 -key"))
        .arg(key)
        .arg("-cert")
        .arg(own)
        .arg("-CAfile")
        .arg(clients);
    let mut server = launch.start().unwrap();
    server.wait_for_line("ACCEPT", PATIENCE).unwrap();
    server
}

/// curl that knows `edge-1` at the HTTPS port, and trusts the kubelet's own certificate alone.
pub(crate) fn curl(stage: &Stage, namespace: &NetNs) -> Launch {
    let [key, certificate] =
        ["key", "certificate"].map(|what| stage.path(&format!("prometheus-{what}.pem")));
    Launch::new(namespace, "curl")
        .words(
            "-sSv --stderr - --max-time 20 --noproxy * --resolve edge-1:10263:10.77.0.1 --cacert",
        )
        .arg(stage.path("kubelet-certificate.pem"))
        .arg("--key")
        .arg(key)
        .arg("--cert")
        .arg(certificate)
        .arg("https://edge-1:10263/")
}

/// How `openssl s_client` says that its handshake ended.
fn handshake(stage: &Stage, name: &str) -> String {
    let client =
        Launch::new(stage.control(), "openssl").words(&format!("s_client -connect {HTTPS} {name}"));
    end_of(&client).unwrap_err()
}

fn file_with(stage: &Stage, name: &str, content: &[u8]) -> PathBuf {
    let path = stage.path(name);
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn curl_names_a_node_and_the_targets_certificate_meets_its_own_from_host_and_pod() {
    let stage = Stage::with_pod();
    let _kubelet = kubelet(&stage);
    let (_server, _agent) = stage.culvert(ON, "");
    for namespace in [stage.control(), stage.lab().pod(0).namespace()] {
        let said = end_of(&curl(&stage, namespace)).unwrap();
        assert!(said.contains("CN=kubelet"), "{said}");
        // The page of the target tells which certificate it was shown.
        assert!(said.contains("Subject: CN=prometheus"), "{said}");
    }
    assert_eq!(
        stage.metric("connections_total{frontend=\"https\",outcome=\"completed\"}"),
        2
    );
}

#[test]
fn who_cannot_be_carried_hears_the_alert_for_it() {
    let stage = Stage::new();
    let _server = stage.server(ON);
    for (name, alert, reason) in [
        ("-noservername", "alert missing extension", "no_server_name"),
        ("-servername edge-7", "unrecognized name", "unknown_name"),
    ] {
        let said = handshake(&stage, name);
        assert!(said.contains(alert), "{said}");
        assert_eq!(
            stage.metric(&format!("https_refusals_total{{reason=\"{reason}\"}}")),
            1
        );
    }
    let plain = Launch::new(stage.control(), "curl");
    let plain = plain
        .words("-sSv --stderr - --max-time 20 --noproxy *")
        .arg(format!("http://{HTTPS}/"));
    end_of(&plain).unwrap_err();
    assert_eq!(stage.metric("https_refusals_total{reason=\"not_tls\"}"), 1);
}

#[test]
fn a_node_without_an_agent_is_an_internal_error() {
    let stage = Stage::new();
    let (_server, mut agent) = stage.culvert(ON, "");
    agent.kill().unwrap();
    stage.until_connected(0, false);
    let said = handshake(&stage, "-servername edge-1");
    assert!(said.contains("alert internal error"), "{said}");
    assert_eq!(
        stage.metric("https_refusals_total{reason=\"dial_failed\"}"),
        1
    );
    assert_eq!(stage.metric("dial_failures_total{cause=\"no_session\"}"), 1);
}

#[test]
fn half_closes_and_resets_arrive_on_either_side() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, _agent) = stage.culvert(ON, "");
    let open = || {
        let mut client = stage.connect(HTTPS);
        client.write_all(HELLO).unwrap();
        let mut kubelet = accept(&target);
        let mut hello = vec![0; HELLO.len()];
        kubelet.read_exact(&mut hello).unwrap();
        assert_eq!(hello, HELLO, "untouched");
        (client, kubelet)
    };
    let (mut client, mut kubelet) = open();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(kubelet.read(&mut [0]).unwrap(), 0);
    kubelet.write_all(b"the answer").unwrap();
    drop(kubelet);
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "the answer");

    let (client, mut kubelet) = open();
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    let end = kubelet.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn servers_take_over_under_a_flood_of_tls_clients_without_one_failure() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let (mut server, mut agent) = stage.culvert(ON, "");
    let hello = file_with(&stage, "hello", HELLO);
    let threads = scale::count(8, 4, 2);
    let line = format!("flood --to {HTTPS} --threads {threads} --pause-ms 1 --seconds 300 --say");
    let flood = stage.probe(stage.control(), &line).arg(hello);
    let mut flood = flood.start().unwrap();
    flood.wait_for_line("flooding", PATIENCE).unwrap();
    for _ in 0..2 {
        agent.forget_output();
        let next = stage.server(ON);
        assert!(server.wait(PATIENCE).unwrap().success());
        agent
            .wait_for_line("session established", PATIENCE)
            .unwrap();
        server = next;
    }
    let report: Connects = finish(flood);
    eprintln!("{report:?}");
    assert!(report.succeeded > 0 && report.failures() == 0, "{report:?}");
}

#[test]
fn a_server_that_stops_refuses_new_clients_and_lets_those_it_has_finish() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, _agent) = stage.culvert(ON, "");
    let mut client = stage.connect(HTTPS);
    client.write_all(HELLO).unwrap();
    let mut kubelet = accept(&target);
    kubelet.read_exact(&mut vec![0; HELLO.len()]).unwrap();
    server.signal(rustix::process::Signal::TERM).unwrap();
    stage.eventually_fails(HTTPS, "connect ECONNREFUSED");
    kubelet.write_all(b"to the end").unwrap();
    drop(kubelet);
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "to the end");
    drop(client);
    assert!(server.wait(PATIENCE).unwrap().success());
}
