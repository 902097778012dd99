//! gRPC over an HTTP/2 connection that somebody else opened.
//!
//! tonic's own transport would bring a second TLS configuration, a reconnect policy and detached
//! tasks; these adapters between `h2` and tonic's generated code are all that is needed.

mod body;
mod codec;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower_service::Service;

pub(crate) use self::{
    body::{RecvBody, capacity, send_body},
    codec::LazyCodec,
};

/// The client end of an HTTP/2 connection as the service that tonic's generated clients call.
/// Clones share the connection; the tracker owns the tasks that send request bodies.
#[derive(Clone)]
pub(crate) struct Channel {
    requests: SendRequest<Bytes>,
    tasks: TaskTracker,
}

/// Opens HTTP/2 with default limits, for a few small calls. Nothing moves until the caller polls
/// the connection, which ends once the channel is dropped.
pub(crate) async fn connect<S>(
    stream: S,
    tasks: TaskTracker,
) -> Result<(Channel, Connection<S>), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (requests, connection) = h2::client::handshake(stream).await?;
    Ok((Channel::new(requests, tasks), connection))
}

impl Channel {
    pub(crate) fn new(requests: SendRequest<Bytes>, tasks: TaskTracker) -> Self {
        Self { requests, tasks }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<RecvBody>;
    type Error = h2::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, h2::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.requests.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (head, body) = request.into_parts();
        let sent = self
            .requests
            .send_request(Request::from_parts(head, ()), false);
        let tasks = self.tasks.clone();
        Box::pin(async move {
            let (response, stream) = sent?;
            tasks.spawn(async move {
                // The call fails by its response; what is left here is only the reason why.
                if let Err(error) = send_body(body, stream).await {
                    tracing::debug!(%error, "request body was not sent to its end");
                }
            });
            Ok(response.await?.map(RecvBody::new))
        })
    }
}
