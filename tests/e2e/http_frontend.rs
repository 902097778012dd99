//! Requests to the HTTP port: where they go, and what is said of those that go nowhere.

use std::thread;

use culvert_tests::{Launch, scale, until};

use crate::stage::http::{Service, get};
use crate::stage::{PATIENCE, Stage, end_of};

pub(crate) const HTTP: &str = "10.77.0.1:10264";
pub(crate) const SERVER: &str = "--http-port 10264 --ports 9100,9200";
pub(crate) const AGENT: &str = "--allow-ports 9100,9200";

#[test]
fn names_addresses_and_both_headers_lead_to_the_port_that_they_say() {
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
        let answer = get(&mut client, "/metrics", fields);
        let expected = format!("{served} GET /metrics HTTP/1.1");
        assert_eq!((answer.code, answer.body), (200, expected), "{fields}");
    }
    // Many requests of one client, and one connection to each service.
    for service in &services {
        assert_eq!(service.connections(), 1);
    }
    assert!(stage.metric("http_requests_total{code=\"2xx\",reason=\"answered\"}") >= 6);
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
