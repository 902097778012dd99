//! Requests to the HTTP port: from whom they are taken, where they go, and what they cost.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use culvert_tests::report::{Held, parse};
use culvert_tests::{Launch, NetNs, programs, scale, until};
use rustix::net::Shutdown;

use crate::stage::{PATIENCE, Stage, end_of, open_files, resident_kib};

const HTTP: &str = "10.77.0.1:10264";
const SERVER: &str = "--http-port 10264 --ports 9100,9200";
const AGENT: &str = "--allow-ports 9100,9200";

/// A service on the edge that answers each request with its own address and the request's first line.
struct Service {
    listener: TcpListener,
    connections: Arc<AtomicUsize>,
    accepting: Option<JoinHandle<()>>,
}

struct Answer {
    code: u16,
    body: String,
}

impl Service {
    fn start(stage: &Stage, address: &str) -> Self {
        let listener = stage.listen(address);
        let (accepted, connections) =
            (listener.try_clone().unwrap(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&connections);
        let accepting = thread::spawn(move || {
            thread::scope(|scope| {
                while let Ok((client, _)) = accepted.accept() {
                    counted.fetch_add(1, Ordering::Relaxed);
                    scope.spawn(move || answer_all(client));
                }
            });
        });
        Self {
            listener,
            connections,
            accepting: Some(accepting),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
        self.accepting.take().unwrap().join().unwrap();
    }
}

fn answer_all(mut client: TcpStream) {
    let own = client.local_addr().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    while let Some(head) = read_head(&mut client) {
        let body = format!("{own} {}", head.lines().next().unwrap());
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        if client.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        (stream.read(&mut byte).ok()? == 1).then(|| head.push(byte[0]))?;
    }
    Some(String::from_utf8(head).unwrap())
}

fn ask(stream: &mut TcpStream, request: &str) -> Answer {
    stream
        .write_all(format!("{request}\r\n\r\n").as_bytes())
        .unwrap();
    let head = read_head(stream).expect("an answer");
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(one, value)| one.eq_ignore_ascii_case(name).then_some(value))
    };
    let mut body = vec![0; field("content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    Answer {
        code: head.split(' ').nth(1).unwrap().parse().unwrap(),
        body: String::from_utf8(body).unwrap(),
    }
}

fn get(stream: &mut TcpStream, path: &str, fields: &str) -> Answer {
    ask(stream, &format!("GET {path} HTTP/1.1\r\n{fields}"))
}

fn probe(namespace: &NetNs, line: &str) -> Launch {
    Launch::new(namespace, programs::probe().unwrap()).words(line)
}

#[test]
fn names_addresses_and_both_headers_lead_to_the_port_that_they_say_whatever_the_path() {
    let stage = Stage::new();
    let services = ["10.78.0.11:9100", "10.78.0.11:9200", "[fd00:78::11]:9100"]
        .map(|address| Service::start(&stage, address));
    let (_server, _agent) = stage.culvert(SERVER, AGENT);
    let mut client = stage.connect(HTTP);
    for (fields, served) in [
        ("Host: edge-1:9100", "10.78.0.11:9100"),
        ("Host: 10.78.0.11:9200", "10.78.0.11:9200"),
        ("Host: [fd00:78::11]:9100", "[fd00:78::11]:9100"),
        (
            "Host: 10.77.0.1:10264\r\nX-Tunnel-Proxy-Dest: 10.78.0.11:9200",
            "10.78.0.11:9200",
        ),
        (
            "Host: server:9100\r\nX-Tunnel-Proxy-Host: edge-1",
            "10.78.0.11:9100",
        ),
        (
            "Host: server:1\r\nX-Tunnel-Proxy-Host: edge-1\r\nX-Tunnel-Proxy-Dest: 10.78.0.11:9200",
            "10.78.0.11:9200",
        ),
    ] {
        for path in [
            "/metrics",
            "/exec/default/pod/c?command=sh",
            "/containerLogs/a/b/c",
        ] {
            let answer = get(&mut client, path, fields);
            let expected = format!("{served} GET {path} HTTP/1.1");
            assert_eq!((answer.code, answer.body), (200, expected), "{fields}");
        }
    }
    // Many requests of one client, and one connection to each service.
    for service in &services {
        assert_eq!(service.connections.load(Ordering::Relaxed), 1);
    }
    assert!(stage.metric("http_requests_total{code=\"2xx\",reason=\"answered\"}") >= 18);
}

#[test]
fn what_cannot_be_reached_is_told_with_node_cause_and_code() {
    let stage = Stage::new();
    let (_server, mut agent) = stage.culvert(SERVER, AGENT);
    let mut client = stage.connect(HTTP);
    for (host, code, named) in [
        ("edge-7:9100", 404, "edge-7"),
        ("edge-1:9100", 502, "connection refused"),
        ("edge-1:10250", 403, "port 10250 of node edge-1"),
        ("edge-1:22", 403, "port 22 of node edge-1"),
        // The agent asks nobody but its operator.
        ("edge-1:10255", 502, "edge-1"),
    ] {
        let answer = get(&mut client, "/", &format!("Host: {host}"));
        assert_eq!(answer.code, code, "{host}: {}", answer.body);
        let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            (&status["kind"], &status["code"]),
            (&"Status".into(), &code.into())
        );
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(named), "{host}: {message}");
    }
    agent.stop(PATIENCE).unwrap();
    stage.until_connected(0, false);
    let answer = get(&mut client, "/", "Host: edge-1:9100");
    assert_eq!(answer.code, 503, "{}", answer.body);
    assert!(answer.body.contains("no agent of node edge-1 is connected"));
}

#[test]
fn without_the_redirect_nodes_are_reached_by_name_alone() {
    let stage = Stage::new();
    let _service = Service::start(&stage, "10.78.0.11:9100");
    let flags =
        format!("{SERVER} --redirect=false --bind-address 10.77.0.1 --http-address 127.0.0.1");
    let (_server, _agent) = stage.culvert(&flags, AGENT);
    assert_eq!(stage.fails("10.78.0.11:9100"), "connect ENETUNREACH");
    assert_eq!(stage.metric("redirect_entries"), 0);
    assert_eq!(stage.metric("nodes"), 1);
    assert_eq!(stage.fails(HTTP), "connect ECONNREFUSED");
    let mut client = stage.connect("127.0.0.1:10264");
    let answer = get(&mut client, "/metrics", "Host: edge-1:9100");
    assert_eq!(answer.code, 200, "{}", answer.body);
}

#[test]
fn only_this_machine_may_use_it_and_whom_the_operator_lets_in() {
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
    assert_eq!(service.connections.load(Ordering::Relaxed), 0);
    assert!(server.stop(PATIENCE).unwrap().success());

    let _server = stage.server(&format!("{SERVER} --http-allow-cidrs 10.79.0.0/16"));
    stage.until_connected(0, true);
    let mut pod = stage.connect_from(stage.lab().pod(0).namespace(), HTTP);
    assert_eq!(get(&mut pod, "/", "Host: edge-1:9100").code, 200);
    let mut edge = stage.connect_from(stage.edge(), HTTP);
    assert_eq!(get(&mut edge, "/", "Host: edge-1:9100").code, 403);
}

#[test]
fn thousands_that_say_half_a_request_cost_little_and_keep_nobody_waiting() {
    let stage = Stage::with_pod();
    let _service = Service::start(&stage, "10.78.0.11:9100");
    let (server, _agent) = stage.culvert(SERVER, AGENT);
    let mut client = stage.connect(HTTP);
    assert_eq!(get(&mut client, "/", "Host: edge-1:9100").code, 200);
    let (files, memory) = (open_files(&server), resident_kib(&server));
    let count = scale::count(5000, 5000, 300);
    let long = "x".repeat(30 << 10);
    let floods = ["GET", &format!("GET /{long}")].map(|said| {
        let line = format!("hold --to {HTTP} --rate 1000 --count {count} --seconds 20 --say");
        let flood = probe(stage.lab().pod(0).namespace(), &line).arg(said);
        flood.start().unwrap()
    });
    for _ in 0..20 {
        // Who has asked before, and who comes now.
        for client in [&mut client, &mut stage.connect(HTTP)] {
            assert_eq!(get(client, "/", "Host: edge-1:9100").code, 200);
        }
        let held = open_files(&server).saturating_sub(files);
        assert!(held <= 5200, "{held} more files are open");
        let grown = resident_kib(&server).saturating_sub(memory);
        assert!(grown <= 256 << 10, "{grown} KiB more are resident");
    }
    for mut flood in floods {
        let held: Held = parse(&flood.succeed(PATIENCE).unwrap()).unwrap();
        eprintln!("{held:?}");
        assert!(held.opened >= count * 9 / 10, "{held:?}");
        assert_eq!(held.ended, held.opened, "some may stay for ever");
    }
}

#[test]
fn servers_take_the_port_over_from_each_other_without_a_failed_request() {
    let stage = Stage::new();
    let _service = Service::start(&stage, "10.78.0.11:9100");
    let (mut server, mut agent) = stage.culvert(SERVER, AGENT);
    let count = scale::count(3000, 1500, 200);
    // Each on a connection of its own.
    let curl = Launch::new(stage.control(), "curl")
        .words("-sS --fail --fail-early --max-time 20 --noproxy * -o /dev/null -H connection:close")
        .args(["-H", "Host: edge-1:9100"])
        .arg(format!("http://{HTTP}/[1-{count}]"));
    let flood = thread::spawn(move || end_of(&curl));
    until("requests come", PATIENCE, || {
        let answered = stage.metric("http_requests_total{code=\"2xx\",reason=\"answered\"}");
        Ok((answered > 10).then_some(()))
    })
    .unwrap();
    agent.forget_output();
    let next = stage.server(SERVER);
    agent
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    assert!(
        server.wait(PATIENCE).unwrap().success(),
        "{}",
        server.output()
    );
    assert_eq!(flood.join().unwrap(), Ok(String::new()));
    assert!(stage.metric("http_requests_total{code=\"2xx\",reason=\"answered\"}") > 0);
    drop(next);
}
