//! Carries one connection: the bytes of a socket, or of a program, through a stream of the session and back,
//! unchanged.
//!
//! ```text
//!   local end --outbound--> stream      reads only what flow control lets through
//!   local end <--inbound--- stream      opens the window for what it took, wider for who takes much
//! ```
//! Memory is counted in bytes held, not in payload: neither direction lets frames pile up in `h2`.
//! Both directions live in one task and end on their own: the end of one is passed on as a
//! half-close. A reset, from whichever side, ends both at once and is passed on as a reset, even
//! while a direction waits for a reader that has stopped. A peer that is gone without one is noticed by its kernel's
//! silence, and what only one side has closed does not stand still for ever.

mod backlog;
mod forgotten;
mod inbound;
mod local_end;
mod outbound;
mod pipe;
mod unsent;
mod window;

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::future::OptionFuture;
use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    backlog::Backlog,
    pipe::{pipe, splice},
};
use self::{forgotten::until_forgotten, inbound::Inbound, outbound::Outbound};
pub use self::{
    local_end::{LocalEnd, reset, until_reset},
    pipe::StreamIo,
};
use super::{
    Settings,
    memory::{ConnectionShare, Overflow, SessionRoom},
    transport::{
        Stream, StreamError,
        http2::{ReceiveHalf, RoundTrip, SendHalf},
    },
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

/// What the connections of one session have in common. From it, each window knows how large it should be and may be.
/// Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SessionFlow {
    pub(crate) counters: Arc<ByteCounters>,
    /// How long the other end's answers take.
    pub(crate) round_trip: RoundTrip,
    /// For all windows together.
    room: SessionRoom,
    /// For each.
    largest_window: u32,
}

/// What went before the stream was there, with the dial.
pub(crate) enum Early {
    /// From this end, so many bytes.
    Sent(u64),
    /// From the other end.
    Arrived(Backlog),
}

/// Counts the bytes of many connections as they pass.
#[derive(Debug)]
pub(crate) struct ByteCounters {
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
    /// The stream was reset by the other end, or has ended with its session.
    #[error(transparent)]
    Stream(#[from] StreamError),
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
    pub(crate) fn new(settings: &Settings, counters: ByteCounters) -> Self {
        Self {
            counters: Arc::new(counters),
            round_trip: RoundTrip::default(),
            room: SessionRoom::new(settings.session_memory),
            largest_window: settings.connection_window,
        }
    }
}

impl ByteCounters {
    /// Counters of its own that count into the process's counters as well.
    pub(crate) fn new(all_taken: Counter, all_given: Counter) -> Self {
        Self {
            taken: AtomicU64::new(0),
            given: AtomicU64::new(0),
            all_taken,
            all_given,
        }
    }

    /// For what is counted elsewhere already.
    pub(crate) fn unseen() -> Self {
        Self::new(Counter::default(), Counter::default())
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

impl From<&Transfer> for Outcome {
    fn from(transfer: &Transfer) -> Self {
        match &transfer.end {
            Ok(()) => Self::Completed,
            Err(CarryError::Socket(_) | CarryError::Stream(StreamError::Reset(_))) => Self::Reset,
            Err(CarryError::Stream(StreamError::SessionEnded(_))) => Self::SessionLost,
            Err(CarryError::Overflow(_)) => Self::Overflow,
            Err(CarryError::Forgotten) => Self::Forgotten,
            Err(CarryError::Aborted) => Self::Drained,
        }
    }
}

/// Carries until both sides have closed, one is reset, or `abort` resets both.
pub(crate) async fn carry(
    local: impl LocalEnd,
    stream: Stream,
    early: Early,
    flow: &SessionFlow,
    share: &ConnectionShare,
    abort: CancellationToken,
) -> Transfer {
    let Stream { mut send, receive } = stream;
    let (sent, arrived) = match early {
        Early::Sent(bytes) => (bytes, Backlog::new(share.received())),
        Early::Arrived(bytes) => (0, bytes),
    };
    let outbound = Outbound::new(&flow.counters, share, sent);
    let inbound = Inbound::new(flow, share);
    // From here on it ends in a reset unless everything has arrived.
    local.reset_on_close();
    let end = tokio::select! {
        end = both_ways(&local, &mut send, (receive, arrived), &outbound, &inbound) => end,
        () = abort.cancelled() => Err(CarryError::Aborted),
    };
    match end {
        Ok(()) => local.close_orderly(),
        Err(_) => send.reset(),
    }
    Transfer {
        from_socket: outbound.bytes(),
        to_socket: inbound.bytes(),
        end,
    }
}

async fn both_ways(
    local: &impl LocalEnd,
    send: &mut SendHalf,
    (receive, arrived): (ReceiveHalf, Backlog),
    outbound: &Outbound<'_>,
    inbound: &Inbound<'_>,
) -> Result<(), CarryError> {
    let mut receiving = pin!(inbound.run(receive, arrived, local));
    let (mut all_sent, mut all_received) = (false, false);
    let mut forgotten = None;
    while !(all_sent && all_received) {
        let sending = async {
            if all_sent {
                // After our end of stream only this still notices that the other end gave up.
                return Err(send.until_reset().await.into());
            }
            outbound.run(local, send).await
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
            error = local.until_reset() => return Err(CarryError::Socket(error)),
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
