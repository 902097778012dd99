//! What tests of frontends share: two ends that speak HTTP byte by byte.

use std::future::Future;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::tunnel::testing::PATIENCE;

pub(in crate::frontend) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    let done = timeout(PATIENCE, future).await;
    done.expect("it took too long")
}

/// One end that speaks HTTP as it is written.
pub(in crate::frontend) struct Wire<S = TcpStream>(pub(in crate::frontend) S);

#[derive(Debug)]
pub(in crate::frontend) struct Answer {
    pub(in crate::frontend) code: u16,
    pub(in crate::frontend) head: String,
    pub(in crate::frontend) body: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(in crate::frontend) async fn say(&mut self, text: &str) {
        patiently(self.0.write_all(text.as_bytes())).await.unwrap();
    }

    pub(in crate::frontend) async fn get(&mut self, host: &str) {
        self.say(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
    }

    /// All that comes up to that, and not a byte more.
    pub(in crate::frontend) async fn until(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            let read = patiently(self.0.read_u8()).await;
            let so_far = String::from_utf8_lossy(&heard).into_owned();
            heard.push(read.unwrap_or_else(|error| panic!("{error} after {so_far:?}")));
        }
        String::from_utf8(heard).unwrap()
    }

    pub(in crate::frontend) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// An answer whose head says how long it is.
    pub(in crate::frontend) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            code,
            head,
            body: String::new(),
        };
        let length = answer.header("content-length").expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        patiently(self.0.read_exact(&mut body)).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// A `Status`: its code, and its message.
    pub(in crate::frontend) async fn status(&mut self) -> (u16, String) {
        let answer = self.answer().await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["code"], answer.code);
        (answer.code, status["message"].as_str().unwrap().to_owned())
    }

    /// What comes until the end, be that in order or not.
    pub(in crate::frontend) async fn rest_or_reset(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = patiently(self.0.read_to_end(&mut rest)).await;
        String::from_utf8(rest).unwrap()
    }

    pub(in crate::frontend) async fn rest(&mut self) -> String {
        let mut rest = String::new();
        patiently(self.0.read_to_string(&mut rest)).await.unwrap();
        rest
    }
}

impl Answer {
    pub(in crate::frontend) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| {
            let (one, value) = line.split_once(": ")?;
            one.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}
