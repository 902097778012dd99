//! HTTP at both ends of Culvert: a service on an edge that keeps what it hears, and requests written byte by byte.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::net::Shutdown;

use super::{PATIENCE, Stage};

/// A service that answers each request with its own address and the request's first line.
pub(crate) struct Service {
    listener: TcpListener,
    heard: Arc<Heard>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

/// What a client hears.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: String,
}

impl Service {
    pub(crate) fn start(stage: &Stage, address: &str) -> Self {
        let listener = stage.listen(address);
        let (accepted, heard) = (listener.try_clone().unwrap(), Arc::<Heard>::default());
        let keeping = Arc::clone(&heard);
        let accepting = thread::spawn(move || {
            thread::scope(|scope| {
                while let Ok((client, _)) = accepted.accept() {
                    keeping.connections.fetch_add(1, Ordering::Relaxed);
                    scope.spawn(|| answer_all(client, &keeping));
                }
            });
        });
        Self {
            listener,
            heard,
            accepting: Some(accepting),
        }
    }

    /// How many connections it has had.
    pub(crate) fn connections(&self) -> usize {
        self.heard.connections.load(Ordering::Relaxed)
    }

    /// The heads of the requests that it has heard to their ends since the last time.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.requests.lock().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
        self.accepting.take().unwrap().join().unwrap();
    }
}

fn answer_all(mut client: TcpStream, heard: &Heard) {
    let own = client.local_addr().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    while let Some(head) = read_head(&mut client) {
        if skip_body(&mut client, &head).is_none() {
            return;
        }
        let body = format!("{own} {}", head.lines().next().unwrap());
        let length = body.len();
        heard.requests.lock().unwrap().push(head);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        if client.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// `None` if it does not come to its end.
fn skip_body(client: &mut TcpStream, head: &str) -> Option<()> {
    if field(head, "transfer-encoding") == Some("chunked") {
        while read_until(client, b"\r\n")? != "0\r\n" {}
        return read_until(client, b"\r\n").map(drop);
    }
    let length = field(head, "content-length").map_or(0, |length| length.parse().unwrap());
    client.read_exact(&mut vec![0; length]).ok()
}

pub(crate) fn read_head(stream: &mut TcpStream) -> Option<String> {
    read_until(stream, b"\r\n\r\n")
}

fn read_until(stream: &mut TcpStream, end: &[u8]) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(end) {
        let mut byte = [0];
        (stream.read(&mut byte).ok()? == 1).then(|| text.push(byte[0]))?;
    }
    Some(String::from_utf8(text).unwrap())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find_map(|(one, value)| one.eq_ignore_ascii_case(name).then_some(value))
}

/// Sends a request without a body; `request` is its head.
pub(crate) fn ask(stream: &mut TcpStream, request: &str) -> Answer {
    stream
        .write_all(format!("{request}\r\n\r\n").as_bytes())
        .unwrap();
    answer(stream).expect("an answer")
}

pub(crate) fn get(stream: &mut TcpStream, path: &str, fields: &str) -> Answer {
    ask(stream, &format!("GET {path} HTTP/1.1\r\n{fields}"))
}

/// The next answer, if one comes.
pub(crate) fn answer(stream: &mut TcpStream) -> Option<Answer> {
    let head = read_head(stream)?;
    let mut body = vec![0; field(&head, "content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(Answer {
        code: head.split(' ').nth(1).unwrap().parse().unwrap(),
        body: String::from_utf8(body).unwrap(),
    })
}
