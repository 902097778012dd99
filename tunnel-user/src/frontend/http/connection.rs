//! One client's connection, from accept to close.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    HEAD_FIELDS, HEAD_SIZE, Shared,
    access::Proof,
    client_io::ClientIo,
    proxy,
    refusal::Refusal,
    visit::{Visit, Wait},
};
use crate::{
    frontend::{Stops, linger},
    model::PeerAddr,
    observability::metrics::{HttpReason, Outcome},
    tunnel::{LocalEnd as _, until_reset},
    wait::sleep_until_opt,
};

/// How long a connection may take to send what has been waited for already when the server stops.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// How a conversation ended.
pub(super) enum End {
    /// Both have said all.
    Over,
    /// The client has kept us waiting too long, or another has its place; `None` where we have no more time ourselves.
    GivenUp(Option<HttpReason>),
    Reset,
    Drained,
}

/// A client that has been accepted: what it is read and written by, and the socket below that.
pub(in crate::frontend) struct Arrived<S> {
    pub(in crate::frontend) stream: S,
    pub(in crate::frontend) socket: Arc<TcpStream>,
    pub(in crate::frontend) peer: PeerAddr,
    pub(in crate::frontend) proof: Proof,
}

/// Serves a client until it closes or a limit is reached.
pub(super) async fn serve<S>(arrived: Arrived<S>, shared: Arc<Shared>, stops: Stops)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrived {
        stream,
        socket,
        peer,
        proof,
    } = arrived;
    let counted = shared.connections.open(shared.entrance.frontend());
    let client = shared.entrance.own_addresses().client_of(peer);
    let visit = Arc::new(Visit::new((peer, client), proof, shared.limiter.clone()));
    let on_unread = Arc::clone(&shared).on_unread(peer);
    let io = ClientIo::new(stream, Arc::clone(&visit), on_unread);
    // From here on it ends in a reset unless all answers have been whole.
    socket.reset_on_close();
    let mut end = talk(io, &socket, &visit, &shared, &stops).await;
    if let End::GivenUp(Some(why)) = end
        && visit.owes_head()
    {
        // Nobody can be told: what the client has said so far need not be HTTP.
        shared.requests.count(StatusCode::REQUEST_TIMEOUT, why);
    }
    if let (End::Over, Some(upgrading)) = (&end, visit.take_upgrading()) {
        end = upgrading.run(&stops.abort).await;
    }
    if matches!(end, End::Over) {
        let _ = timeout(linger::TIME, linger::until_closed(&socket)).await;
    }
    if matches!(end, End::Over | End::GivenUp(_)) && !visit.is_cut() {
        socket.close_orderly();
    }
    counted.end(end.into());
}

/// Requests and answers.
async fn talk(
    io: ClientIo<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    socket: &TcpStream,
    visit: &Arc<Visit>,
    shared: &Arc<Shared>,
    stops: &Stops,
) -> End {
    let service = service_fn(|request: Request<Incoming>| async {
        Ok::<_, Infallible>(proxy::answer(shared, visit, request).await)
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_SIZE)
        .max_headers(HEAD_FIELDS)
        .max_header_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut drained_by = None;
    loop {
        let Wait { until, eviction } = visit.wait();
        let until = until.map(|until| drained_by.map_or(until, |by| until.min(by)));
        let evicted = async {
            match eviction {
                Some(eviction) => eviction.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // It resets targets as well, and what the client would hear of that is not the reason.
            () = stops.abort.cancelled() => return End::Drained,
            ended = &mut connection => {
                if let Err(error) = &ended && error.is_parse_version_h2() {
                    // hyper says nothing to that.
                    Arc::clone(shared).on_unread(visit.peer)(&Refusal::BadHead);
                }
                return ended.into();
            }
            () = visit.changed() => {}
            () = sleep_until_opt(until) => {
                return End::GivenUp(drained_by.is_none().then_some(HttpReason::TooSlow));
            }
            () = evicted => return End::GivenUp(Some(HttpReason::Evicted)),
            _ = until_reset(socket) => return End::Reset,
            () = stops.accepting.cancelled(), if drained_by.is_none() => {
                drained_by = Some(Instant::now() + DRAIN_TIME);
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

impl From<hyper::Result<()>> for End {
    fn from(ended: hyper::Result<()>) -> Self {
        match ended {
            Ok(()) => Self::Over,
            // It has been told why, in last words that have to arrive.
            Err(error) if error.is_parse() => Self::Over,
            Err(_) => Self::Reset,
        }
    }
}

impl From<End> for Outcome {
    fn from(end: End) -> Self {
        match end {
            End::Over | End::GivenUp(_) => Self::Completed,
            End::Reset => Self::Reset,
            End::Drained => Self::Drained,
        }
    }
}
