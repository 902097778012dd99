//! The holes of Yurt-Tunnel, each as the attack that it lets through there. SECURITY.md lists them with the names of
//! these tests.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use culvert_tests::{Daemon, Launch, command};

use crate::http_frontend::{AGENT, HTTP, SERVER};
use crate::https::{certificate, curl, kubelet};
use crate::identity::{CONNECT, call, refused, says};
use crate::stage::http::{Service, get};
use crate::stage::{NODE, PATIENCE, Stage, end_of, without_token};

/// The HTTPS port as well.
const BOTH: &str = "--http-port 10264 --https-port 10263 --ports 9100,9200";

/// Whether nobody has connected.
fn is_untouched(target: &TcpListener) -> bool {
    target.set_nonblocking(true).unwrap();
    target
        .accept()
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// There, what an agent says it is is never held against its certificate.
#[test]
fn registering_as_another_node_fails_with_the_certificate_of_a_node() {
    let stage = Stage::with_edges(2);
    let mut server = stage.server("");
    let _first = stage.agent(0, "");
    let _second = stage.agent(1, "");
    let mine = stage.path("agent0/state/agent.pem");
    let mine = mine.to_str().unwrap();

    // The agent sees it before it asks.
    let original = stage.path("agent0/state");
    let copy = stage.path("copy");
    fs::create_dir(&copy).unwrap();
    command::run("cp", ["-a".as_ref(), original.as_path(), &copy]).unwrap();
    says(
        &refused(&stage, "copy", &without_token(1)),
        &["the stored certificate is for node edge-1, not for edge-2"],
    );
    // A program that does not look gets no further: by name, or by address.
    let by_name = call(&stage, CONNECT, &["--cert", mine, "-H", "agentid: edge-2"]);
    says(
        &by_name,
        &["grpc-status: 7", "edge-1", "registers%20as%20edge-2"],
    );
    let identifiers = "agentidentifiers: ipv4=10.78.0.12&host=edge-1";
    let by_address = call(
        &stage,
        CONNECT,
        &["--cert", mine, "-H", "agentid: edge-1", "-H", identifiers],
    );
    says(
        &by_address,
        &["grpc-status: 7", "does%20not%20name%20address%2010.78.0.12"],
    );
    let line = server.wait_for_line("refused an agent", PATIENCE).unwrap();
    says(&line, &["node=edge-1", "registers as edge-2"]);
    assert_eq!(stage.metric("sessions_refused_total"), 2);
    assert_eq!(stage.status().sessions.len(), 2, "both keep theirs");
}

/// There, it need not have one.
#[test]
fn registering_without_a_certificate_fails_and_nothing_but_enrolment_answers() {
    let stage = Stage::new();
    let (_server, _agent) = stage.culvert("", "");
    for path in [CONNECT, "/culvert.v1.Tunnel/Carry"] {
        let said = call(&stage, path, &["-H", "agentid: edge-1"]);
        says(
            &said,
            &["grpc-status: 16", "client%20certificate%20is%20required"],
        );
    }
    // An empty message, not compressed, is looked at, and is no request for a certificate.
    let message = stage.path("message");
    fs::write(&message, [0; 5]).unwrap();
    let message = format!("@{}", message.display());
    for (call_of, answer) in [
        ("Enrol", ["grpc-status: 3", "name"]),
        (
            "Renew",
            ["grpc-status: 7", "has%20no%20client%20certificate"],
        ),
    ] {
        let path = format!("/culvert.v1.Enrolment/{call_of}");
        let said = call(&stage, &path, &["--data-binary", &message]);
        says(&said, &answer);
    }
}

/// There, whoever reaches the server's HTTPS port acts on every kubelet as the tunnel's own user.
#[test]
fn reaching_a_kubelet_by_the_tunnel_lends_nobody_an_identity() {
    let stage = Stage::new();
    let _kubelet = kubelet(&stage);
    let (_server, _agent) = stage.culvert(BOTH, "");
    let unnamed = "-sSv --stderr - --max-time 20 --noproxy * --insecure --resolve";
    let captured = stage.client(stage.control(), "curl");
    let direct = Launch::new(stage.control(), "curl");
    for (client, resolve, url) in [
        (&direct, "edge-1:10263:10.77.0.1", "https://edge-1:10263/"),
        (
            &captured,
            "edge-1:10250:10.78.0.11",
            "https://edge-1:10250/",
        ),
    ] {
        let client = client.clone().words(unnamed).arg(resolve).arg(url);
        let said = end_of(&client).unwrap_err();
        // The kubelet's own word, as to anybody else who shows no certificate.
        assert!(said.contains("certificate required"), "{url}: {said}");
    }
    let mut plain = stage.connect(HTTP);
    for fields in [
        "Host: edge-1:10250",
        "Host: edge-1:9100\r\nX-Tunnel-Proxy-Dest: 10.78.0.11:10250",
    ] {
        let answer = get(&mut plain, "/pods", fields);
        assert_eq!(answer.code, 403, "{fields}: {}", answer.body);
    }
    // What the kubelet takes is the caller's own.
    let said = end_of(&curl(&stage, stage.control())).unwrap();
    assert!(said.contains("Subject: CN=prometheus"), "{said}");
}

/// There, the agent dials whatever address the server names: the whole network of the edge. Here the server names one
/// of another machine there, as one that was taken over could.
#[test]
fn making_an_agent_dial_a_foreign_address_fails() {
    let stage = Stage::new();
    let router = stage.lab().router();
    let victims = ["10.78.0.1:10250", "10.78.0.1:9100"]
        .map(|address| router.run(|| TcpListener::bind(address)).unwrap());
    let _server = stage.server(SERVER);
    let join = stage.token(0, "--address 10.78.0.1");
    let _agent = stage.up(0, &format!("{join} {AGENT}"));
    // By its certificate it is the agent's own, so it stands for the agent's machine: it is reached by loopback.
    stage.is_reset("10.78.0.1:10250");
    let _own = stage.target("--bind 127.0.0.1:10250");
    stage.works("10.78.0.1:10250");
    let mut client = stage.connect(HTTP);
    for (fields, code) in [
        ("Host: 10.78.0.1:9100", 502),
        ("Host: 10.77.0.1:9100", 404),
        ("Host: 169.254.169.254:9100", 404),
        (
            "Host: edge-1:9100\r\nX-Tunnel-Proxy-Dest: 10.77.0.1:9100",
            404,
        ),
        (
            "Host: edge-1:9100\r\nX-Tunnel-Proxy-Host: edge-1\r\nX-Tunnel-Proxy-Dest: 169.254.169.254:9100",
            400,
        ),
    ] {
        let answer = get(&mut client, "/", fields);
        assert_eq!(answer.code, code, "{fields}: {}", answer.body);
    }
    assert!(victims.iter().all(is_untouched));
    // The agent's machine could.
    stage
        .edge()
        .run(|| TcpStream::connect("10.78.0.1:10250"))
        .unwrap();
}

/// There, the certificate of a kubelet is not verified: whoever answers in its place reads what is meant for it.
#[test]
fn reading_through_a_rogue_kubelet_fails() {
    let stage = Stage::new();
    // The genuine one's, which clients trust; it does not run.
    drop(kubelet(&stage));
    let mut rogue = rogue(&stage);
    let (_server, _agent) = stage.culvert(BOTH, "");
    let by_name = curl(&stage, stage.control()).words("--header Authorization:secret");
    let by_address = stage
        .client(stage.control(), "curl")
        .words(
            "-sSv --stderr - --max-time 20 --noproxy * --resolve edge-1:10250:10.78.0.11 --cacert",
        )
        .arg(stage.path("kubelet-certificate.pem"))
        .words("--header Authorization:secret https://edge-1:10250/");
    for client in [&by_name, &by_address] {
        let said = end_of(client).unwrap_err();
        assert!(said.contains("SSL certificate problem"), "{said}");
    }
    assert!(!rogue.output().contains("secret"), "{}", rogue.output());
    // It would be heard by who does not verify.
    let careless = by_name.words("--insecure --max-time 2");
    let _unanswered = end_of(&careless).unwrap_err();
    rogue
        .wait_for_line("Authorization:secret", PATIENCE)
        .unwrap();
}

/// A TLS server with a certificate for the node's name that nobody has vouched for; says what it hears.
fn rogue(stage: &Stage) -> Daemon {
    let [key, own] = certificate(stage, "rogue").map(|file| file.display().to_string());
    let launch = Launch::new(stage.edge(), "socat").words("-d -d -u");
    let listen = format!(
        "OPENSSL-LISTEN:10250,bind=10.78.0.11,reuseaddr,fork,verify=0,key={key},certificate={own}"
    );
    let mut rogue = launch.arg(listen).arg("STDOUT").start().unwrap();
    rogue.wait_for_line("listening on", PATIENCE).unwrap();
    rogue
}

/// There, they listen on the node's address and ask nobody anything.
#[test]
fn using_the_ports_for_requests_and_monitoring_from_outside_fails() {
    let stage = Stage::with_pod();
    let service = Service::start(&stage, "10.78.0.11:9100");
    let (mut server, _agent) = stage.culvert(SERVER, AGENT);
    for namespace in [stage.lab().pod(0).namespace(), stage.edge()] {
        let mut stranger = stage.connect_from(namespace, HTTP);
        let answer = get(&mut stranger, "/", "Host: edge-1:9100");
        assert_eq!(answer.code, 403, "{}", answer.body);
        assert!(
            answer.body.contains("--http-allow-cidrs"),
            "{}",
            answer.body
        );
        // However much it asks at once: it takes nothing but a place that others may take, and has to leave.
        let mut stranger = stage.connect_from(namespace, HTTP);
        let many = "GET / HTTP/1.1\r\nHost: edge-1:9100\r\n\r\n".repeat(500);
        stranger.write_all(many.as_bytes()).unwrap();
        let mut heard = String::new();
        stranger.read_to_string(&mut heard).unwrap();
        assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{heard}");
    }
    assert_eq!(service.connections(), 0);
    // Figures, and no profiles, of this machine's own.
    for address in ["10.77.0.1:10265", "10.78.0.11:10266"] {
        let outside = stage.edge().run(|| TcpStream::connect(address));
        let refused = outside.expect_err(address).kind();
        assert_eq!(refused, ErrorKind::ConnectionRefused, "{address}");
    }
    assert!(server.stop(PATIENCE).unwrap().success());

    let _server = stage.server(&format!("{SERVER} --http-allow-cidrs 10.79.0.0/16"));
    stage.until_connected(0, true);
    let mut pod = stage.connect_from(stage.lab().pod(0).namespace(), HTTP);
    assert_eq!(get(&mut pod, "/", "Host: edge-1:9100").code, 200);
    let mut edge = stage.connect_from(stage.edge(), HTTP);
    assert_eq!(get(&mut edge, "/", "Host: edge-1:9100").code, 403);
}

/// There, what the path looks like counts: `/exec/...` goes to a kubelet, whatever service it was meant for.
#[test]
fn a_path_that_looks_like_exec_leads_to_no_other_port() {
    let stage = Stage::new();
    let kubelet = stage.listen(NODE);
    let service = Service::start(&stage, "10.78.0.11:9100");
    let (_server, _agent) = stage.culvert(SERVER, AGENT);
    let mut client = stage.connect(HTTP);
    for path in [
        "/exec/default/pod/c?command=sh",
        "/attach/default/pod/c",
        "/portForward/default/pod",
        "/containerLogs/default/pod/c",
        "/run/default/pod/c",
        "//exec/default/pod/c",
        "/metrics/../exec/default/pod/c",
        "/%65xec/default/pod/c",
    ] {
        let answer = get(&mut client, path, "Host: edge-1:9100");
        let expected = format!("10.78.0.11:9100 GET {path} HTTP/1.1");
        assert_eq!((answer.code, answer.body), (200, expected));
        // Nor does it lead out of what is open.
        let answer = get(&mut client, path, "Host: edge-1:10250");
        assert_eq!(answer.code, 403, "{}", answer.body);
    }
    assert_eq!(service.requests().len(), 8);
    assert!(is_untouched(&kubelet));
}
