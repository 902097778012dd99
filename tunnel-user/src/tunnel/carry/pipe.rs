//! A connection's end in this program: hyper, say, reads and writes it as it would a socket; or another stream is.
//!
//! ```text
//!   program --StreamIo--> lane --Pipe--> carry --> stream        stream --> carry --Pipe--> lane --Pipe--> carry --> stream
//!           <------------ lane <-------- carry <--                      <--       <-------- lane <--------       <--
//! ```
//! A stream that its reader does not poll must not let frames pile up in the transport, so a task of its own carries
//! it, as it would from a socket, and the program reads what that has put into a lane.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};

use self::lane::{End, Lane};
use super::LocalEnd;

mod lane;

/// How long the other end may take to finish once nobody will read what it says: as the kernel has it for sockets
/// (`tcp_fin_timeout`).
const ABANDONED_TIME: Duration = Duration::from_mins(1);

/// The program's end. Dropping it before the program has shut it down resets the connection; afterwards the other end
/// may still finish, but not say any more.
#[derive(Debug)]
pub struct StreamIo(Lanes);

/// The carrier's end. Dropping it resets the other end, unless the connection has ended in order.
#[derive(Debug)]
pub(crate) struct Pipe(Lanes);

/// The two lanes as one of their ends sees them.
#[derive(Debug)]
struct Lanes {
    reads: Arc<Mutex<Lane>>,
    writes: Arc<Mutex<Lane>>,
}

/// Both ends of a connection in this program. So many bytes wait for the reader of either, of whom they hold up the
/// writer then.
pub(crate) fn pipe(capacity: usize) -> (Pipe, StreamIo) {
    let (carriers, programs) = Lanes::pair(capacity);
    (Pipe(carriers), StreamIo(programs))
}

/// The same with a carrier at either end: what one stream brings is what the other sends.
pub(crate) fn splice(capacity: usize) -> (Pipe, Pipe) {
    let (one, other) = Lanes::pair(capacity);
    (Pipe(one), Pipe(other))
}

impl Lanes {
    fn pair(capacity: usize) -> (Self, Self) {
        let lane = || Arc::new(Mutex::new(Lane::new(capacity)));
        let (reads, writes) = (lane(), lane());
        let other = Self {
            reads: Arc::clone(&writes),
            writes: Arc::clone(&reads),
        };
        (Self { reads, writes }, other)
    }

    fn reads(&self) -> MutexGuard<'_, Lane> {
        lock(&self.reads)
    }

    fn writes(&self) -> MutexGuard<'_, Lane> {
        lock(&self.writes)
    }

    fn end(&self, end: End) {
        self.reads().end(end);
        self.writes().end(end);
    }
}

fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    // A lane is whole between any two operations, whatever panicked meanwhile.
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalEnd for Pipe {
    // Whoever does not end it in order resets it: there is nothing to prepare.
    fn reset_on_close(&self) {}

    fn close_orderly(&self) {
        self.0.end(End::Finished);
    }

    async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.0.reads().poll_readable(cx)).await;
        Ok(())
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        self.0
            .reads()
            .read(room, |bytes| buffer.extend_from_slice(bytes))
    }

    async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.0.writes().poll_writable(cx)).await;
        Ok(())
    }

    fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        self.0.writes().write(data)
    }

    fn unacknowledged(&self) -> u64 {
        self.0.writes().len() as u64
    }

    fn finish(&self) -> io::Result<()> {
        self.0.writes().end(End::Finished);
        Ok(())
    }

    async fn until_reset(&self) -> io::Error {
        let abandoned = async {
            poll_fn(|cx| self.0.writes().poll_reset(cx)).await;
            sleep(ABANDONED_TIME).await;
        };
        tokio::select! {
            () = poll_fn(|cx| self.0.reads().poll_reset(cx)) => {}
            () = abandoned => {}
        }
        io::ErrorKind::ConnectionReset.into()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.0.end(End::Reset);
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut lane = self.0.reads();
        lane.poll_readable(cx)
            .map(|()| lane.read(buffer.remaining(), |bytes| buffer.put_slice(bytes)))
            .map_ok(drop)
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut lane = self.0.writes();
        lane.poll_writable(cx).map(|()| lane.write(data))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.writes().end(End::Finished);
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamIo {
    fn drop(&mut self) {
        self.0.end(End::Reset);
    }
}

#[cfg(test)]
mod tests;
