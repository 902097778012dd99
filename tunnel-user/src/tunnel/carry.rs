//! Carries one connection: the bytes of a socket through a stream of the session and back,
//! unchanged.
//!
//! ```text
//!   socket --outbound--> stream      reads only what flow control lets through
//!   socket <--inbound--- stream      opens the window for what the socket took, wider for who takes much
//! ```
//! Memory is counted in bytes held, not in payload: neither direction lets frames pile up in `h2`.
//! Both directions live in one task and end on their own: the end of one is passed on as a
//! half-close. A reset, from whichever side, ends both at once and is passed on as a reset, even
//! while a direction waits for a reader that has stopped. A peer that is gone without one is noticed by its kernel's
//! silence, and what only one side has closed does not stand still for ever.

mod backlog;
mod forgotten;
mod inbound;
mod outbound;
mod unsent;
mod window;

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::OptionFuture;
use h2::{Reason, RecvStream, SendStream};
use prometheus_client::metrics::counter::Counter;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};
use tokio_util::sync::CancellationToken;

use self::{forgotten::until_forgotten, inbound::Inbound, outbound::Outbound};
use super::{
    Settings,
    http2::RoundTrip,
    memory::{ConnectionShare, Overflow, SessionRoom},
};
use crate::observability::metrics::Outcome;

/// What one connection carried, and how it ended.
#[derive(Debug)]
pub struct Transfer {
    /// Bytes taken from the socket.
    pub from_socket: u64,
    /// Bytes that the socket took.
    pub to_socket: u64,
    /// Both sides closed after all bytes had arrived, or why not.
    pub end: Result<(), CarryError>,
}

/// What the connections of one session have in common. From it, each window knows how large it should be and may be. Clones are
/// the same.
#[derive(Clone, Debug)]
pub(crate) struct SessionFlow {
    pub(crate) meter: Arc<Meter>,
    /// How long the other end's answers take.
    pub(crate) round_trip: RoundTrip,
    /// For all windows together.
    room: SessionRoom,
    /// For each.
    largest_window: u32,
}

/// Counts the bytes of many connections as they pass.
#[derive(Debug)]
pub(crate) struct Meter {
    taken: AtomicU64,
    given: AtomicU64,
    all_taken: Counter,
    all_given: Counter,
}

/// Why a connection ended before both sides had closed it.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The socket on this machine was reset, or failed.
    #[error("the socket failed")]
    Socket(#[source] io::Error),
    /// The other end reset its stream, for its socket failed.
    #[error("the other end reset the connection ({0})")]
    Reset(Reason),
    /// The session ended.
    #[error("the session ended")]
    Session(#[source] h2::Error),
    /// The other end does not keep to its window, and there is no memory for that.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// One side has closed, and the other neither closes nor says anything.
    #[error("one side has closed it, and for an hour nothing has moved")]
    Forgotten,
    /// This process is about to end, and the time for draining is over.
    #[error("this end stops")]
    Aborted,
}

impl SessionFlow {
    pub(crate) fn new(settings: &Settings, meter: Meter) -> Self {
        Self {
            meter: Arc::new(meter),
            round_trip: RoundTrip::default(),
            room: SessionRoom::new(settings.session_memory),
            largest_window: settings.connection_window,
        }
    }
}

impl Meter {
    /// A meter of its own that counts into the process's counters as well.
    pub(crate) fn new(all_taken: Counter, all_given: Counter) -> Self {
        Self {
            taken: AtomicU64::new(0),
            given: AtomicU64::new(0),
            all_taken,
            all_given,
        }
    }

    /// Bytes taken from sockets, and bytes that sockets took.
    pub(crate) fn read(&self) -> (u64, u64) {
        (
            self.taken.load(Ordering::Relaxed),
            self.given.load(Ordering::Relaxed),
        )
    }

    fn taken(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.all_taken.inc_by(bytes);
    }

    fn given(&self, bytes: u64) {
        self.given.fetch_add(bytes, Ordering::Relaxed);
        self.all_given.inc_by(bytes);
    }
}

impl From<h2::Error> for CarryError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            Some(_) | None => Self::Session(error),
        }
    }
}

impl From<&Transfer> for Outcome {
    fn from(transfer: &Transfer) -> Self {
        match &transfer.end {
            Ok(()) => Self::Completed,
            Err(CarryError::Socket(_) | CarryError::Reset(_)) => Self::Reset,
            Err(CarryError::Session(_)) => Self::SessionLost,
            Err(CarryError::Overflow(_)) => Self::Overflow,
            Err(CarryError::Forgotten) => Self::Forgotten,
            Err(CarryError::Aborted) => Self::Drained,
        }
    }
}

/// Carries until both sides have closed, one is reset, or `abort` resets both. `receive` resolves
/// to the stream's receiving half, which the agent gets only with the server's response; sending
/// need not wait.
pub(crate) async fn carry(
    socket: TcpStream,
    mut send: SendStream<Bytes>,
    receive: impl Future<Output = Result<RecvStream, h2::Error>>,
    flow: &SessionFlow,
    share: &ConnectionShare,
    abort: CancellationToken,
) -> Transfer {
    let outbound = Outbound::new(&flow.meter, share);
    let inbound = Inbound::new(flow, share);
    // From here on the socket ends in a reset unless everything has arrived: also when this
    // process is killed and the kernel closes it.
    reset(&socket);
    forgotten::ask_kernel(&socket);
    // Whoever sent the bytes has decided when: none wait here for the peer to acknowledge others.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot disable Nagle's algorithm");
    }
    let end = tokio::select! {
        end = both_ways(&socket, &mut send, receive, &outbound, &inbound) => end,
        () = abort.cancelled() => Err(CarryError::Aborted),
    };
    match end {
        Ok(()) => close(&socket),
        Err(_) => send.send_reset(Reason::CANCEL),
    }
    Transfer {
        from_socket: outbound.bytes(),
        to_socket: inbound.bytes(),
        end,
    }
}

/// Makes the closing of the socket a reset, so that its peer does not take what it got for the
/// whole.
pub fn reset(socket: &TcpStream) {
    if let Err(error) = socket.set_zero_linger() {
        tracing::debug!(%error, "the socket was closed without a reset");
    }
}

/// Makes the closing of the socket an orderly one again.
fn close(socket: &TcpStream) {
    if let Err(error) = SockRef::from(socket).set_linger(None) {
        tracing::debug!(%error, "the socket was closed with a reset");
    }
}

async fn both_ways(
    socket: &TcpStream,
    send: &mut SendStream<Bytes>,
    receive: impl Future<Output = Result<RecvStream, h2::Error>>,
    outbound: &Outbound<'_>,
    inbound: &Inbound<'_>,
) -> Result<(), CarryError> {
    let mut receiving = pin!(async { inbound.run(receive.await?, socket).await });
    let (mut all_sent, mut all_received) = (false, false);
    let mut forgotten = None;
    while !(all_sent && all_received) {
        let sending = async {
            if all_sent {
                // After our end of stream only this still notices that the other end gave up.
                return Err(outbound::reset_by_peer(send).await);
            }
            outbound.run(socket, send).await
        };
        tokio::select! {
            end = sending => {
                end?;
                all_sent = true;
            }
            end = &mut receiving, if !all_received => {
                end?;
                all_received = true;
            }
            error = until_reset(socket) => return Err(CarryError::Socket(error)),
            _ = OptionFuture::from(forgotten.as_mut()), if forgotten.is_some() => {
                return Err(CarryError::Forgotten);
            }
        }
        // Boxed, and only now: thousands of connections have never been half closed.
        forgotten.get_or_insert_with(|| {
            Box::pin(until_forgotten(|| outbound.bytes() + inbound.bytes()))
        });
    }
    Ok(())
}

/// Resolves when the socket is reset, even if nobody reads or writes it at that moment.
pub async fn until_reset(socket: &TcpStream) -> io::Error {
    match socket.ready(Interest::ERROR).await {
        Ok(_) => socket
            .take_error()
            .ok()
            .flatten()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        Err(error) => error,
    }
}
