//! A connection's end in this program: hyper, say, reads and writes it as it would a socket.
//!
//! ```text
//!   program --StreamIo--> lane --Pipe--> carry --> stream
//!           <------------ lane <-------- carry <--
//! ```
//! A stream that its reader does not poll must not let frames pile up in the transport, so a task of its own carries it,
//! as it would from a socket, and the program reads what that has put into a lane.

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
pub struct StreamIo(Arc<Lanes>);

/// The carrier's end. Dropping it resets the program's, unless the connection has ended in order.
#[derive(Debug)]
pub(crate) struct Pipe(Arc<Lanes>);

#[derive(Debug)]
struct Lanes {
    to_program: Mutex<Lane>,
    to_stream: Mutex<Lane>,
}

/// Both ends of a connection in this program. So many bytes wait for the reader of either, of whom they hold up the
/// writer then.
pub(crate) fn pipe(capacity: usize) -> (Pipe, StreamIo) {
    let lane = || Mutex::new(Lane::new(capacity));
    let lanes = Arc::new(Lanes {
        to_program: lane(),
        to_stream: lane(),
    });
    (Pipe(Arc::clone(&lanes)), StreamIo(lanes))
}

impl Lanes {
    fn to_program(&self) -> MutexGuard<'_, Lane> {
        lock(&self.to_program)
    }

    fn to_stream(&self) -> MutexGuard<'_, Lane> {
        lock(&self.to_stream)
    }

    fn end(&self, end: End) {
        self.to_program().end(end);
        self.to_stream().end(end);
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
        poll_fn(|cx| self.0.to_stream().poll_readable(cx)).await;
        Ok(())
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        self.0
            .to_stream()
            .read(room, |bytes| buffer.extend_from_slice(bytes))
    }

    async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.0.to_program().poll_writable(cx)).await;
        Ok(())
    }

    fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        self.0.to_program().write(data)
    }

    fn unacknowledged(&self) -> u64 {
        self.0.to_program().len() as u64
    }

    fn finish(&self) -> io::Result<()> {
        self.0.to_program().end(End::Finished);
        Ok(())
    }

    async fn until_reset(&self) -> io::Error {
        let abandoned = async {
            poll_fn(|cx| self.0.to_program().poll_reset(cx)).await;
            sleep(ABANDONED_TIME).await;
        };
        tokio::select! {
            () = poll_fn(|cx| self.0.to_stream().poll_reset(cx)) => {}
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
        let mut lane = self.0.to_program();
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
        let mut lane = self.0.to_stream();
        lane.poll_writable(cx).map(|()| lane.write(data))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.to_stream().end(End::Finished);
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
