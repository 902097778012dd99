//! When the peer last showed life: it said something, or its segments did.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::poll_proceed,
    time::Instant,
};

use super::{Patience, Segments};

/// The last signs of life of a peer.
pub(crate) struct Activity {
    heard: Heard,
    segments: Segments,
}

/// How long nothing has come from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// No sign of life.
    pub(super) of_life: Duration,
    /// Nothing at all, not even an acknowledgement.
    pub(super) of_path: Duration,
    /// Small segments pass, and large ones do not.
    pub(super) loses_large: bool,
}

/// The moment of the last byte read from a peer.
#[derive(Clone, Debug)]
struct Heard {
    start: Instant,
    last_read: Arc<AtomicU64>,
}

/// A byte stream whose reads are noted in an [`Activity`].
pub(crate) struct Watched<T> {
    inner: T,
    heard: Heard,
}

impl Activity {
    /// How long it has been, as far as it can be seen.
    pub(super) fn silence(&mut self) -> Silence {
        let heard = self.heard.silence();
        let signs = self.segments.look();
        let of_life = signs.of_life.map_or(heard, |life| heard.min(life));
        Silence {
            of_life,
            of_path: signs.of_path.map_or(of_life, |path| of_life.min(path)),
            loses_large: signs.loses_large,
        }
    }

    /// Whether the peer owes us an answer of its own, while its kernel gives one.
    pub(crate) fn is_stuck(&mut self, patience: Patience) -> bool {
        patience.answers_by_kernel_alone(self.silence())
    }

    /// Makes the end of the connection one that the peer hears of, whatever waits before it.
    pub(super) fn give_up(&self) {
        self.segments.give_up();
    }
}

impl Heard {
    fn silence(&self) -> Duration {
        let last_read = Duration::from_millis(self.last_read.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last_read)
    }

    fn note(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_read.store(now, Ordering::Relaxed);
    }
}

impl<T> Watched<T> {
    /// Watches a session's stream; `segments` are those of the socket below it.
    pub(crate) fn new(inner: T, segments: Segments) -> (Self, Activity) {
        let heard = Heard {
            start: Instant::now(),
            last_read: Arc::default(),
        };
        let activity = Activity {
            heard: heard.clone(),
            segments,
        };
        (Self { inner, heard }, activity)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A busy session takes turns with its connections, which take the frames out of `h2` that it
        // reads: the buffers below would let it read megabytes in one go.
        let turn = ready!(poll_proceed(cx));
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        if poll.is_ready() {
            turn.made_progress();
        }
        if buf.filled().len() > before {
            self.heard.note();
        }
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
