//! What a client sees of a node to which its machine has no route: everything, unchanged.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use culvert_tests::report::Connects;
use culvert_tests::{Daemon, Launch, command, scale};

use crate::stage::{NODE, NODE_V6, PATIENCE, Stage};

const SUBJECT: &str = "edge-server-of-this-test";

const OPENSSL: &str = "[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
subjectAltName = IP:10.78.0.11, IP:fd00:78::11
";

/// A real TLS server that is no part of Culvert stands for the kubelet; one on each family.
fn tls_servers(stage: &Stage) -> [Daemon; 2] {
    let (key, certificate) = (stage.path("key.pem"), stage.path("certificate.pem"));
    let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    // A configuration of one's own, for small machines have none.
    let settings = stage.path("openssl.cnf");
    std::fs::write(&settings, OPENSSL).unwrap();
    let settings = settings.to_str().unwrap();
    command::run_line(&format!(
        "openssl req -x509 -config {settings} -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
         -nodes -days 1 -subj /CN={SUBJECT} -keyout {key} -out {certificate}"
    ))
    .unwrap();
    [NODE, NODE_V6].map(|address| {
        let launch = Launch::new(stage.edge(), "openssl").words(&format!(
            "s_server -accept {address} -www -key {key} -cert {certificate}"
        ));
        let mut server = launch.start().unwrap();
        server.wait_for_line("ACCEPT", PATIENCE).unwrap();
        server
    })
}

#[test]
fn curl_sees_the_targets_own_certificate_from_host_and_pod_on_both_families() {
    let stage = Stage::with_pod();
    let _targets = tls_servers(&stage);
    assert_eq!(stage.fails(NODE), "connect ENETUNREACH", "before culvert");
    let (_server, _agent) = stage.culvert("", "");

    let authority = stage.path("certificate.pem");
    for namespace in [stage.control(), stage.lab().pod(0).namespace()] {
        for to in [NODE, NODE_V6] {
            // With this CA alone, only the target's own certificate passes.
            let mut curl = stage
                .client(namespace, "curl")
                .words("-sSv --stderr - --max-time 20 --noproxy * --cacert")
                .arg(&authority)
                .arg(format!("https://{to}/"))
                .start()
                .unwrap();
            let said = curl.succeed(PATIENCE).unwrap();
            assert!(said.contains(&format!("CN={SUBJECT}")), "{said}");
            assert!(said.contains("s_server"), "the page of the target: {said}");
        }
    }
}

#[test]
fn getpeername_shows_the_node_and_the_server_speaks_first() {
    let stage = Stage::with_pod();
    let _v4 = stage.target(&format!("--bind {NODE} --speak-first here-is-v4"));
    let _v6 = stage.target(&format!("--bind {NODE_V6} --speak-first here-is-v6"));
    let (_server, _agent) = stage.culvert("", "");

    for (to, greeting) in [(NODE, "here-is-v4"), (NODE_V6, "here-is-v6")] {
        for namespace in [stage.control(), stage.lab().pod(0).namespace()] {
            let line = format!("connect --to {to} --greeting --echo");
            let mut probe = stage.probe(namespace, &line).start().unwrap();
            let said = probe.succeed(PATIENCE).unwrap();
            let report: Connects = culvert_tests::report::parse(&said).unwrap();
            assert_eq!(report.failures(), 0, "{to}: {report:?}");
            let peers: Vec<_> = report.peers.iter().map(ToString::to_string).collect();
            assert_eq!(peers, [to]);
            assert!(report.greetings.contains(greeting), "{report:?}");
        }
    }
}

#[test]
fn every_kind_of_client_is_carried() {
    let stage = Stage::new();
    // All listeners take data in the SYN, without a cookie (ip-sysctl: tcp_fastopen).
    let open = stage.control().sysctl("net.ipv4.tcp_fastopen", "1539");
    open.unwrap();
    let _v4 = stage.target(&format!("--bind {NODE}"));
    let _v6 = stage.target(&format!("--bind {NODE_V6}"));
    let (_server, _agent) = stage.culvert("", "");
    for kind in [
        "--nonblocking",
        "--fastopen",
        "--v4-mapped",
        "--v4-mapped --nonblocking",
        "--bind 10.77.0.1",
    ] {
        let report: Connects = stage.report(&format!("connect --to {NODE} --echo {kind}"));
        assert_eq!(report.failures(), 0, "{kind}: {report:?}");
    }
    for kind in ["--v6-only", "--v6-only --nonblocking --fastopen"] {
        let report: Connects = stage.report(&format!("connect --to {NODE_V6} --echo {kind}"));
        assert_eq!(report.failures(), 0, "{kind}: {report:?}");
    }
    // The kernel's list of exceptions: sockets bound to a device go where they are told.
    let report: Connects = stage.report(&format!("connect --to {NODE} --device lo"));
    assert_eq!(report.succeeded, 0, "{report:?}");
}

#[test]
fn every_byte_of_many_parallel_connections_arrives() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE} --hash"));
    // A dial takes ten turns of tasks, each behind a thousand transfers: unoptimised, that may be half a second a turn.
    let (_server, _agent) = stage.culvert("--dial-timeout 30s", "");
    let connections = scale::count(1000, 1000, 100);
    let largest = scale::count(1 << 20, 128 << 10, 64 << 10);
    let report: culvert_tests::report::Hashes = stage.report(&format!(
        "hash --to {NODE} --connections {connections} --max {largest} --seconds 70"
    ));
    assert_eq!(
        (report.intact, report.broken.len()),
        (connections, 0),
        "{report:?}"
    );
}

#[test]
fn a_reply_after_the_clients_end_of_stream_arrives() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, _agent) = stage.culvert("", "");
    let (mut client, mut accepted) = stage.pair(&target);

    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    accepted.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "question");
    accepted.write_all(b"answer").unwrap();
    drop(accepted);
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "answer");
}

#[test]
fn a_targets_end_of_stream_leaves_the_other_direction_open() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, _agent) = stage.culvert("", "");
    let (mut client, mut accepted) = stage.pair(&target);

    accepted.write_all(b"all there is").unwrap();
    accepted.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "all there is");
    client.write_all(b"more from the client").unwrap();
    drop(client);
    let mut heard = String::new();
    accepted.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "more from the client");
}
