//! What clients must not say, at the ports that they reach: each is refused as it should be and counted, what a service
//! hears is never more than was asked, and what that cost is given back.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::http_frontend::{AGENT, HTTP, SERVER};
use crate::https::{HELLO, HTTPS};
use crate::slow_clients::gives_back;
use crate::stage::http::{Service, answer};
use crate::stage::{NODE, Stage, accept, open_files};

pub(crate) const HOST: &str = "Host: edge-1:9100\r\n";
fn record(fragment: &[u8]) -> Vec<u8> {
    let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
    [&[22, 3, 1], &length[..], fragment].concat()
}

/// Everything that is answered to what is no hello, up to the end; a reset is one.
fn alert_for(stage: &Stage, said: &[u8]) -> Vec<u8> {
    let mut client = stage.connect(HTTPS);
    // It may be refused before all of it is sent.
    let _ = client.write_all(said);
    let _ = client.shutdown(Shutdown::Write);
    rest(&mut client)
}

/// The code of the only answer to what may be a request; `None` if there is no answer.
fn code_for(stage: &Stage, said: &str) -> Option<u16> {
    let mut client = stage.connect(HTTP);
    let _ = client.write_all(said.as_bytes());
    let code = answer(&mut client).map(|answer| answer.code);
    let _ = client.shutdown(Shutdown::Write);
    let more = rest(&mut client);
    assert!(more.is_empty(), "{}", String::from_utf8_lossy(&more));
    code
}

fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = client.read_to_end(&mut heard);
    heard
}

/// What is no hello, the alert for it, and the reason that is counted.
fn no_hellos() -> Vec<(Vec<u8>, u8, &'static str)> {
    let message = &HELLO[5..];
    let noise = (0..40_000_u32).map(|n| n.wrapping_mul(7919).to_le_bytes()[1] | 0x80);
    let noise: Vec<u8> = noise.collect();
    let not_tls = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // SSL 2, another kind of record, another kind of message.
        b"\x80\x2e\x01\x00\x02\x00\x15\x00".to_vec(),
        b"\x17\x03\x03\x00\x05hello".to_vec(),
        record(b"\x02\x00\x00\x04\x03\x03\x00\x00"),
        noise.clone(),
    ];
    let malformed = [
        record(b""),
        record(&[&[1, 0, 0, 100], &noise[..100]].concat()),
        record(&[message, b"more"].concat()),
    ];
    let too_long = [
        record(&[&[1, 0, 0xff, 0xff], &[0; 16_000][..]].concat()),
        [&[22, 3, 1, 0xff, 0xff], message].concat(),
        message.chunks(1).take(65).flat_map(record).collect(),
    ];
    let not_tls = not_tls.into_iter().map(|said| (said, 10, "not_tls"));
    let malformed = malformed.into_iter().map(|said| (said, 50, "malformed"));
    let too_long = too_long.into_iter().map(|said| (said, 47, "too_long"));
    not_tls.chain(malformed).chain(too_long).collect()
}

#[test]
fn hellos_that_are_none_hear_the_alert_for_it_and_reach_no_node() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (server, _agent) = stage.culvert("--https-port 10263", "");
    let files = open_files(&server);
    for (said, alert, reason) in no_hellos() {
        let shown = said.escape_ascii().to_string();
        let shown = &shown[..shown.len().min(60)];
        let series = format!("https_refusals_total{{reason=\"{reason}\"}}");
        let before = stage.metric(&series);
        let heard = alert_for(&stage, &said);
        assert_eq!(heard, [21, 3, 3, 0, 2, 2, alert], "{shown}");
        assert_eq!(stage.metric(&series), before + 1, "{shown}");
    }
    // Who leaves in the midst of it hears nothing.
    assert!(alert_for(&stage, &HELLO[..100]).is_empty());
    assert_eq!(stage.metric("https_refusals_total{reason=\"left\"}"), 1);
    // One that is whole, in as many pieces as it may have, is carried as it is.
    let message = &HELLO[5..];
    let pieces = message.chunks(message.len().div_ceil(64));
    let pieces: Vec<_> = pieces.map(record).collect();
    let mut client = stage.connect(HTTPS);
    for piece in &pieces {
        client.write_all(&piece[..3]).unwrap();
        client.write_all(&piece[3..]).unwrap();
    }
    let mut heard = vec![0; pieces.concat().len()];
    let mut node = accept(&target);
    node.read_exact(&mut heard).unwrap();
    assert!(heard == pieces.concat(), "untouched");
    drop((client, node));
    target.set_nonblocking(true).unwrap();
    target.accept().expect_err("nothing else has come");
    gives_back(&server, files);
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn get(fields: &str) -> String {
    format!("GET /one HTTP/1.1\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /one HTTP/1.1\r\n{HOST}{fields}\r\n{body}")
}

/// The end of a body in chunks, and what a reader would take for a request of its own that goes by another length.
fn smuggled() -> String {
    format!("0\r\n\r\nGET /smuggled HTTP/1.1\r\n{HOST}\r\n")
}

/// What may be read in one way, and is one request whatever it looks like.
fn odd_requests() -> Vec<String> {
    let body = smuggled();
    let length = format!("Content-Length: {}\r\n", body.len());
    let hops = "Connection: Transfer-Encoding, Content-Length, Host\r\nContent-Length: 0\r\n";
    vec![
        post(&format!("{length}{CHUNKED}"), &body),
        post(&format!("{CHUNKED}{length}"), &body),
        post(hops, ""),
        // The authority counts.
        "GET http://edge-1:9100/one HTTP/1.1\r\nHost: edge-1:9200\r\n\r\n".to_owned(),
    ]
}

/// Messages that end where nobody can tell.
fn unclear_lengths() -> Vec<String> {
    let body = smuggled();
    let length = format!("Content-Length: {}\r\nContent-Length: 0\r\n", body.len());
    let twice = CHUNKED.repeat(2);
    let fields = [
        &length,
        "Content-Length: 0, 5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        &twice,
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X\0: y\r\n",
        ": y\r\n",
    ];
    fields.map(|fields| post(fields, &body)).into()
}

/// Messages that go where nobody can tell, or that are none.
fn unclear_hosts() -> Vec<String> {
    let fields = [
        "",
        "Host:\r\n",
        "Host: edge-1:9100\r\nHost: edge-1:9200\r\n",
        "Host: edge-1:9100\r\nHost: edge-1:9100\r\n",
        "Host: edge-1:9200@edge-1:9100\r\n",
        "Host: edge-1:9100, edge-1:9200\r\n",
        "Host: edge-1:9100/x\r\n",
    ];
    let lines = [
        "GET http://a@edge-1:9100/one HTTP/1.1",
        "GET https://edge-1:9100/one HTTP/1.1",
        "CONNECT edge-1:9100 HTTP/1.1",
        "GET /one two HTTP/1.1",
        "GET /one HTTP/3.0",
        "Host: edge-1:9100",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7f\x03\x03",
    ];
    let lines = lines.map(|line| format!("{line}\r\n{HOST}\r\n"));
    fields.map(get).into_iter().chain(lines).collect()
}

fn too_large() -> Vec<String> {
    let much = "y".repeat(1 << 20);
    vec![
        get(&format!("{HOST}{}", "X: y\r\n".repeat(10_000))),
        get(&format!("{HOST}X: {much}\r\n")),
        format!("GET /{much} HTTP/1.1\r\n{HOST}\r\n"),
    ]
}

/// Bodies that do not come to an end as they should.
fn unclear_bodies() -> Vec<String> {
    let bodies = [
        "FFFFFFFFFFFFFFFFF\r\nx".to_owned(),
        "-1\r\nx\r\n0\r\n\r\n".to_owned(),
        "1\r\nxy\r\n0\r\n\r\n".to_owned(),
        format!("1;{}\r\nx\r\n0\r\n\r\n", "y".repeat(1 << 20)),
        format!("0\r\n{}\r\n", "X: y\r\n".repeat(100_000)),
    ];
    bodies.map(|body| post(CHUNKED, &body)).into()
}

#[test]
fn requests_that_two_could_read_differently_are_one_or_none() {
    let stage = Stage::new();
    let services = ["10.78.0.11:9100", "10.78.0.11:9200"];
    let [service, other] = services.map(|address| Service::start(&stage, address));
    let (server, _agent) = stage.culvert(SERVER, AGENT);
    let files = open_files(&server);
    let counted = |code: &str, reason: &str| {
        let series = format!("http_requests_total{{code=\"{code}\",reason=\"{reason}\"}}");
        stage.metric(&series)
    };
    let unclear = [unclear_lengths(), unclear_hosts()].concat();
    for (requests, code, reason) in [(unclear, 400, "malformed"), (too_large(), 431, "too_large")] {
        for request in requests {
            let shown = &request[..request.len().min(120)];
            let before = counted("4xx", reason);
            assert_eq!(code_for(&stage, &request), Some(code), "{shown:?}");
            assert_eq!(counted("4xx", reason), before + 1, "{shown:?}");
        }
    }
    // HTTP/2 is no more answered by HTTP/1 than the other way round.
    let before = counted("4xx", "malformed");
    assert_eq!(code_for(&stage, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), None);
    assert_eq!(counted("4xx", "malformed"), before + 1);
    assert_eq!(service.connections(), 0, "none of them went anywhere");

    for request in odd_requests() {
        assert_eq!(code_for(&stage, &request), Some(200), "{request:?}");
        let heard = service.requests().concat().to_lowercase();
        assert_eq!(heard.matches(" /").count(), 1, "{request:?}: {heard}");
        assert!(heard.contains(" /one http/1.1\r\n"), "{heard}");
        assert!(heard.contains("host: edge-1:9100\r\n"), "{heard}");
    }
    for request in unclear_bodies() {
        let shown = &request[..request.len().min(120)];
        let code = code_for(&stage, &request);
        assert!(code.is_none_or(|code| code >= 400), "{shown:?}: {code:?}");
        assert!(service.requests().is_empty(), "{shown:?}");
    }
    let mut client = stage.connect(HTTP);
    for byte in get(HOST).as_bytes() {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(answer(&mut client).map(|answer| answer.code), Some(200));
    drop(client);
    assert_eq!(other.connections(), 0);
    gives_back(&server, files);
}
