//! Connections towards nodes: dialled through the tunnel, each for one request after the other of the same client.
//!
//! ```text
//!  request --> idle connection, or a dial --> Lease --answer over--> idle
//!                                               \--dropped before--> reset: the target hears it at once
//! ```
//! They are not shared between clients: what one takes of a session's places is counted for it. Nor between users:
//! what the target remembers of one is no other's.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, Response, request::Parts};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::transport::TargetTls;
pub(super) use self::transport::Transport;
use super::{HEAD_FIELDS, HEAD_SIZE, body::Upload, idle::Idle, refusal::Refusal};
use crate::{
    model::{NodeName, OriginalDst, User},
    observability::chain,
    tunnel::{Client, Connection, Destination, Dialer, DialledBy, FirstBytes, StreamIo},
};

mod transport;

/// The most connections that wait for another request, each of which takes a place in the tunnel.
const MOST_IDLE: usize = 512;
/// How long each may: less than what most servers give one.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// How long the connection of an answer that is over may take to notice that.
const SETTLE: Duration = Duration::from_millis(100);

/// Reaches targets. Clones share their connections.
#[derive(Clone)]
pub(super) struct Upstreams(Arc<Shared>);

struct Shared {
    dialer: Dialer,
    transport: Transport,
    idle: Mutex<Idle<Key, Upstream>>,
    tasks: TaskTracker,
    /// Resets all of them.
    abort: CancellationToken,
}

/// What a connection can be used for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) node: NodeName,
    pub(super) dst: SocketAddr,
    pub(super) client: Client,
    /// Whose requests it carries, where that was asked.
    pub(super) user: Option<Arc<User>>,
    /// Whether the target is the node's kubelet, which has to know who this server is.
    pub(super) is_kubelet: bool,
}

/// One connection to a target.
struct Upstream {
    requests: SendRequest<Upload>,
    abort: CancellationToken,
    /// Cancelled when it has ended, with everything delivered or reset.
    ended: CancellationToken,
}

/// The use of a connection by one request. Dropped before its end, it resets the connection.
pub(super) struct Lease {
    upstreams: Upstreams,
    key: Key,
    upstream: Option<Upstream>,
    upload_is_over: Arc<AtomicBool>,
}

/// A connection that is no longer one of requests.
pub(super) struct Leased {
    /// Resets it.
    pub(super) abort: CancellationToken,
    /// Cancelled when it has ended.
    pub(super) ended: CancellationToken,
}

/// Why a connection gave no answer.
struct NoAnswer {
    /// The request, if it cannot have been seen.
    unsent: Option<Request<Upload>>,
    error: hyper::Error,
}

impl Upstreams {
    /// `abort` resets all of them.
    pub(super) fn new(dialer: Dialer, transport: Transport, abort: &CancellationToken) -> Self {
        Self(Arc::new(Shared {
            dialer,
            transport,
            idle: Mutex::new(Idle::new(MOST_IDLE, IDLE_TIME)),
            tasks: TaskTracker::new(),
            abort: abort.child_token(),
        }))
    }

    /// Sends a request; its answer begins with the head that is returned.
    pub(super) async fn send(
        &self,
        key: &Key,
        by: DialledBy,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        // A target may close an idle connection while a request is on its way to it.
        let once_more = Repeatable::of(&request);
        while let Some(upstream) = self.take_idle(key).await {
            let mut lease = self.lease(key, upstream, &request);
            match lease.send(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(NoAnswer { unsent, error }) => {
                    let again = unsent.or_else(|| once_more.as_ref().map(Repeatable::request));
                    request = again.ok_or_else(|| self.no_answer(key, chain(&error)))?;
                }
            }
        }
        let upstream = self.dial(key, by).await?;
        let mut lease = self.lease(key, upstream, &request);
        let answer = lease.send(request).await;
        let no_answer = |NoAnswer { error, .. }| self.no_answer(key, chain(&error));
        Ok((answer.map_err(no_answer)?, lease))
    }

    /// What is refused where the target has not answered.
    pub(super) fn no_answer(&self, key: &Key, cause: String) -> Refusal {
        Refusal::Target {
            node: key.node.clone(),
            dst: key.dst,
            cause,
            is_tls: matches!(self.0.transport, Transport::Tls(_)),
        }
    }

    /// Closes what has waited too long.
    pub(super) fn let_go(&self) {
        let is_of_use = |upstream: &Upstream| !upstream.requests.is_closed();
        self.idle().let_go(Instant::now(), is_of_use);
    }

    /// Ends all of them, now that no client is left.
    pub(super) async fn end(&self) {
        self.idle().clear();
        self.0.abort.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn take_idle(&self, key: &Key) -> Option<Upstream> {
        loop {
            let mut upstream = self.idle().take(key, Instant::now())?;
            // Not ready yet, it is about to be: what it carried is over at both ends.
            if let Ok(Ok(())) = timeout(SETTLE, upstream.requests.ready()).await {
                return Some(upstream);
            }
        }
    }

    async fn dial(&self, key: &Key, by: DialledBy) -> Result<Upstream, Refusal> {
        let Key { node, dst, .. } = key;
        let destination = Destination::NodeAt(node.clone(), OriginalDst(*dst));
        let dialled = self.0.dialer.dial(&destination, by, FirstBytes::default());
        let connection = dialled.await.map_err(|error| Refusal::Dial {
            node: node.clone(),
            dst: *dst,
            error,
        })?;
        match &self.0.transport {
            Transport::Plain => self.speak(key, connection, |io| async { Ok(io) }).await,
            Transport::Tls(tls) => {
                // Before it is carried: without one nothing is said to a kubelet.
                let secured = tls.to(key)?;
                self.speak(key, connection, |io| secured.connect(io)).await
            }
        }
    }

    /// Begins to speak HTTP on a connection, over what `secure` makes of it.
    async fn speak<S, Secured>(
        &self,
        key: &Key,
        connection: Connection,
        secure: impl FnOnce(StreamIo) -> Secured,
    ) -> Result<Upstream, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        Secured: Future<Output = Result<S, Refusal>>,
    {
        let (abort, ended) = (self.0.abort.child_token(), CancellationToken::new());
        let (io, carrying) = connection.into_io(abort.clone());
        let mut carrying = Box::pin(carrying);
        let stream = tokio::select! {
            biased;
            secured = secure(io) => secured?,
            // Nothing moves unless it is carried.
            carried = &mut carrying => {
                return Err(self.no_answer(key, format!("it ended: {:?}", carried.end)));
            }
        };
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_SIZE)
            .max_headers(HEAD_FIELDS)
            .max_header_size(HEAD_SIZE)
            .handshake(TokioIo::new(stream));
        let (requests, connection) = handshake
            .await
            .map_err(|error| self.no_answer(key, chain(&error)))?;
        let (at_end, line) = (ended.clone().drop_guard(), key.to_string());
        self.0.tasks.spawn(async move {
            let (spoken, carried) = tokio::join!(connection.with_upgrades(), carrying);
            tracing::debug!(
                target_address = line, ?spoken, to_node = carried.from_socket,
                to_client = carried.to_socket, end = ?carried.end, "connection to a node ended",
            );
            drop(at_end);
        });
        Ok(Upstream {
            requests,
            abort,
            ended,
        })
    }

    fn lease(&self, key: &Key, upstream: Upstream, request: &Request<Upload>) -> Lease {
        Lease {
            upstreams: self.clone(),
            key: key.clone(),
            upstream: Some(upstream),
            upload_is_over: request.body().is_over(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle<Key, Upstream>> {
        // Whole between any two operations, whatever panicked meanwhile.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, NoAnswer> {
        let upstream = self.upstream.as_mut();
        let upstream = upstream.expect("a lease has its connection until its end");
        let answer = upstream.requests.try_send_request(request).await;
        answer.map_err(|mut failed| NoAnswer {
            unsent: failed.take_message(),
            error: failed.into_error(),
        })
    }

    /// The answer is over: the connection is free, unless the target has not taken the whole request.
    pub(super) fn finish(mut self) {
        let is_whole = self.upload_is_over.load(Ordering::Relaxed);
        if let Some(upstream) = self.upstream.take_if(|_| is_whole) {
            let key = self.key.clone();
            self.upstreams.idle().put(key, upstream, Instant::now());
        }
    }

    /// The connection, for something else than requests.
    pub(super) fn release(mut self) -> Option<Leased> {
        let upstream = self.upstream.take()?;
        Some(Leased {
            abort: upstream.abort,
            ended: upstream.ended,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(upstream) = &self.upstream {
            upstream.abort.cancel();
        }
    }
}

/// A request that may be sent twice.
struct Repeatable(Parts);

impl Repeatable {
    fn of(request: &Request<Upload>) -> Option<Self> {
        let method = request.method();
        let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        if !is_safe || !request.body().is_nothing() {
            return None;
        }
        let mut copy = Request::new(());
        *copy.method_mut() = method.clone();
        *copy.uri_mut() = request.uri().clone();
        copy.headers_mut().clone_from(request.headers());
        Some(Self(copy.into_parts().0))
    }

    fn request(&self) -> Request<Upload> {
        Request::from_parts(self.0.clone(), Upload::nothing())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.dst, self.node)
    }
}
