//! The client end of a session as the service that tonic's generated clients call.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::{RecvBody, send_body};

/// Sends gRPC calls through a session. The tracker owns the tasks that send their bodies.
#[derive(Clone)]
pub(crate) struct Channel {
    requests: SendRequest<Bytes>,
    tasks: TaskTracker,
}

impl Channel {
    pub(crate) fn new(requests: SendRequest<Bytes>, tasks: TaskTracker) -> Self {
        Self { requests, tasks }
    }
}

impl tower_service::Service<Request<Body>> for Channel {
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
