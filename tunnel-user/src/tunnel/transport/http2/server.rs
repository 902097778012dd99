//! The server's end of a session's HTTP/2: it accepts what its peer opens.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tonic::{Status, body::Body};

use super::grpc::{RecvBody, send_body};
use crate::tunnel::transport::{Stream, StreamError};

/// Moves the bytes of a session, as long as it accepts.
pub(crate) type ServerConnection<S> = Connection<S, Bytes>;

/// What such a connection is begun with.
pub(crate) type ServerBuilder = Builder;

/// What a peer has asked for with a stream of its own.
pub(crate) struct Call {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

/// Answers a gRPC call.
pub(crate) struct Responder(SendResponse<Bytes>);

/// A connection that the peer offers, in answer to a dial.
pub(crate) struct OfferedStream {
    request: RecvStream,
    respond: SendResponse<Bytes>,
}

impl Call {
    pub(crate) fn new(request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Self {
        Self { request, respond }
    }

    pub(crate) fn path(&self) -> &str {
        self.request.uri().path()
    }

    pub(crate) fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.headers().get(name)
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// The call as gRPC sees it, and the way to answer it.
    pub(crate) fn into_grpc(self) -> (Request<Body>, Responder) {
        let request = self.request.map(|stream| Body::new(RecvBody::new(stream)));
        (request, Responder(self.respond))
    }

    /// The call as a connection.
    pub(crate) fn into_offer(self) -> OfferedStream {
        OfferedStream {
            request: self.request.into_body(),
            respond: self.respond,
        }
    }

    /// Answers with the status of gRPC.
    pub(crate) fn refuse(mut self, status: Status) {
        let (head, _) = status.into_http::<Body>().into_parts();
        // A caller that left needs no answer.
        let _ = self
            .respond
            .send_response(Response::from_parts(head, ()), true);
    }
}

impl Responder {
    /// Sends the answer to its end.
    pub(crate) async fn send(mut self, answer: Response<Body>) -> Result<(), h2::Error> {
        let (head, body) = answer.into_parts();
        let head = Response::from_parts(head, ());
        let stream = self.0.send_response(head, false)?;
        send_body(body, stream).await
    }
}

impl OfferedStream {
    /// Tells the peer that its connection is wanted. What is sent goes out behind that.
    pub(crate) fn accept(mut self) -> Result<Stream, StreamError> {
        let send = self.respond.send_response(head(StatusCode::OK), false)?;
        Ok(Stream::open(self.request, send))
    }

    /// So many of its first bytes, which are announced; `None` if it ends before, or was taken back.
    pub(crate) async fn first(&mut self, count: usize) -> Option<Bytes> {
        let mut first = BytesMut::new();
        while first.len() < count {
            let more = self.request.data().await?.ok()?;
            // What comes after the announced ones is not asked for yet, and no peer of ours sends it.
            if more.is_empty() || first.len() + more.len() > count {
                return None;
            }
            first.extend_from_slice(&more);
            self.request
                .flow_control()
                .release_capacity(more.len())
                .ok()?;
        }
        Some(first.freeze())
    }

    /// Resolves when the peer takes it back.
    pub(crate) async fn until_reset(&mut self) {
        let _ = poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }

    /// Answers that there will be no connection.
    pub(crate) fn refuse(mut self, head: Response<()>) {
        // A peer that left needs no answer.
        let _ = self.respond.send_response(head, true);
    }

    /// Tells the peer that nobody waits for its connection any more: it resets its target.
    pub(crate) fn decline(self) {
        self.refuse(head(StatusCode::GONE));
    }
}

fn head(status: StatusCode) -> Response<()> {
    let head = Response::builder().status(status).body(());
    head.expect("a response without headers is valid")
}
