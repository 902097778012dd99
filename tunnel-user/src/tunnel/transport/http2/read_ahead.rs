//! Reads a session's socket in large pieces while much arrives, and holds no buffer while little does.
//!
//! By itself rustls asks for 4 KiB at a time, which makes sixteen system calls of one frame. A buffer that
//! stayed would be most of what an idle session takes, and a server has thousands of those.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::SharedSocket;
use crate::tunnel::settings::READ_AHEAD;

/// A read of less than this is no part of a large transfer: a sign of life, a dial.
const LITTLE: usize = 4 * 1024;

/// A session's socket, below TLS.
pub(crate) struct ReadAhead<T = SharedSocket> {
    socket: T,
    mode: Mode,
}

enum Mode {
    /// Into the reader's own buffer, until a read fills that.
    Direct,
    /// Into this one, until a read brings little; the next sign of life does at the latest.
    Ahead {
        buffer: BytesMut,
        /// It is let go once it is empty.
        last: bool,
    },
}

impl<T> ReadAhead<T> {
    pub(crate) fn new(socket: T) -> Self {
        Self {
            socket,
            mode: Mode::Direct,
        }
    }

    pub(crate) fn socket(&self) -> &T {
        &self.socket
    }

    /// The same with another socket, and what was read ahead.
    pub(crate) fn try_map<U>(
        self,
        map: impl FnOnce(T) -> io::Result<U>,
    ) -> io::Result<ReadAhead<U>> {
        Ok(ReadAhead {
            socket: map(self.socket)?,
            mode: self.mode,
        })
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, mode } = &mut *self;
        match mode {
            Mode::Direct => {
                ready!(Pin::new(socket).poll_read(cx, buf))?;
                if buf.remaining() == 0 {
                    *mode = Mode::Ahead {
                        buffer: BytesMut::new(),
                        last: false,
                    };
                }
            }
            Mode::Ahead { buffer, last } => {
                if buffer.is_empty() {
                    buffer.reserve(READ_AHEAD);
                    let read = ready!(poll_read_buf(Pin::new(socket), cx, buffer))?;
                    *last = read < LITTLE;
                }
                let taken = buffer.len().min(buf.remaining());
                buf.put_slice(&buffer[..taken]);
                buffer.advance(taken);
                if *last && buffer.is_empty() {
                    *mode = Mode::Direct;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    impl<T> ReadAhead<T> {
        fn holds_a_buffer(&self) -> bool {
            matches!(&self.mode, Mode::Ahead { buffer, .. } if buffer.capacity() > 0)
        }
    }

    #[tokio::test]
    async fn much_is_read_ahead_and_the_buffer_goes_with_the_next_little() {
        let (mut peer, socket) = tokio::io::duplex(4 * READ_AHEAD);
        let mut ahead = ReadAhead::new(socket);
        let mut piece = [0; LITTLE];
        peer.write_all(b"ping").await.unwrap();
        assert_eq!(ahead.read(&mut piece).await.unwrap(), 4);
        assert!(!ahead.holds_a_buffer());

        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(3 * READ_AHEAD / 2).collect();
        peer.write_all(&sent).await.unwrap();
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let read = ahead.read(&mut piece).await.unwrap();
            received.extend_from_slice(&piece[..read]);
        }
        assert!(received == sent, "the bytes differ");
        assert!(ahead.holds_a_buffer());

        peer.write_all(b"ping").await.unwrap();
        assert_eq!(ahead.read(&mut piece).await.unwrap(), 4);
        assert!(!ahead.holds_a_buffer());
        drop(peer);
        assert_eq!(ahead.read(&mut piece).await.unwrap(), 0);
    }
}
