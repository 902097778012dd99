//! The client half of gRPC over a stream that somebody else opened.
//!
//! tonic's own transport would bring a second TLS configuration, a reconnect policy and detached
//! tasks; hyper's plain HTTP/2 connection and this adapter are all that its generated clients need.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{
    Request, Response,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, Connection, SendRequest},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower_service::Service;

/// Settings of an HTTP/2 client connection.
#[derive(Clone, Debug)]
pub struct Http2Settings {
    /// The name that requests carry as their authority.
    pub authority: Authority,
    /// How often the peer must show that it is there.
    pub keepalive_interval: Duration,
    /// How long it may take to do so before the connection counts as dead.
    pub keepalive_timeout: Duration,
    /// Bytes that the peer may send on one stream before we have taken them.
    pub stream_window: u32,
    /// Bytes that the peer may send on all streams before we have taken them.
    pub connection_window: u32,
}

/// A gRPC channel over one HTTP/2 connection. Clones share the connection.
#[derive(Clone)]
pub struct GrpcChannel {
    requests: SendRequest<Body>,
    authority: Authority,
}

/// Drives one connection: resolves when it is closed, with the reason if there was one. Dropping
/// it closes the connection.
pub type Driver<S> = Connection<TokioIo<S>, Body, OwnedTasks>;

/// Runs hyper's helper tasks where their owner can wait for them.
#[derive(Clone, Debug, Default)]
pub struct OwnedTasks(pub TaskTracker);

impl Http2Settings {
    /// Settings for a few small calls.
    pub fn small(authority: Authority) -> Self {
        Self {
            authority,
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            stream_window: 64 * 1024,
            connection_window: 64 * 1024,
        }
    }
}

/// Opens HTTP/2 on a stream. Nothing moves until the caller polls the driver; `tasks` owns what
/// hyper spawns besides.
pub async fn connect<S>(
    stream: S,
    settings: &Http2Settings,
    tasks: OwnedTasks,
) -> hyper::Result<(GrpcChannel, Driver<S>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (requests, driver) = http2::Builder::new(tasks)
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .handshake(TokioIo::new(stream))
        .await?;
    let channel = GrpcChannel {
        requests,
        authority: settings.authority.clone(),
    };
    Ok((channel, driver))
}

impl GrpcChannel {
    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

impl Service<Request<Body>> for GrpcChannel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.requests.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // tonic's generated clients give the path alone; HTTP/2 wants scheme and authority too.
        let path = request.uri().path_and_query().cloned();
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        *request.uri_mut() = uri
            .try_into()
            .expect("scheme, authority and path make a URI");
        Box::pin(self.requests.send_request(request))
    }
}

impl<F> Executor<F> for OwnedTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
