//! A session's socket with one descriptor for two users: TLS reads and writes, and the [watch](super::segments) asks
//! the kernel what has passed.
//!
//! A server with ten thousand agents has ten thousand of them, and a second descriptor for each would halve how many it
//! may have. Tokio's own stream can only be read by whoever owns it, and a copy of it is a descriptor.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::sys::socket;

/// Read and written here, and looked at by whoever it is shared with.
pub(crate) struct SharedSocket(Arc<TcpStream>);

impl SharedSocket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// The connection ends once this is dropped as well.
    pub(crate) fn share(&self) -> Arc<TcpStream> {
        Arc::clone(&self.0)
    }

    /// Waits until the socket is ready, and moves up to `wanted` bytes.
    fn poll_move(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        wanted: usize,
        mut moving: impl FnMut(SockRef<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if interest.is_readable() {
                ready!(self.0.poll_read_ready(cx))?;
            } else {
                ready!(self.0.poll_write_ready(cx))?;
            }
            let mut moved = None;
            let tried = self.0.try_io(interest, || {
                let count = moving(SockRef::from(&*self.0))?;
                moved = Some(count);
                // Less than wanted: nothing is left, or no room, and the kernel tells when that changes. To ask once
                // more would be a system call for each such wait; Tokio's own stream does the same.
                if (1..wanted).contains(&count) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match (moved, tried) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                (None, _) => {}
            }
        }
    }
}

impl AsyncRead for SharedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wanted = buf.remaining();
        let moving = |socket: SockRef<'_>| socket::receive(&socket, buf);
        let moved = self.poll_move(cx, Interest::READABLE, wanted, moving);
        moved.map_ok(drop)
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_move(cx, Interest::WRITABLE, buf.len(), |socket| socket.send(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_move(cx, Interest::WRITABLE, wanted, |socket| {
            socket.send_vectored(bufs)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is held back here.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, split},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (SharedSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (peer, accepted) = tokio::join!(connecting, listener.accept());
        (SharedSocket::new(accepted.unwrap().0), peer.unwrap())
    }

    /// Far more than the kernel's buffers hold: each side waits for the other many times, in the middle of a piece.
    #[tokio::test]
    async fn every_byte_arrives_both_ways_whoever_waits_for_whom() {
        const SIZE: usize = 32 << 20;
        let (socket, mut peer) = pair().await;
        let sent: Vec<u8> = (0..251).cycle().take(SIZE).collect();
        let (mut reader, mut writer) = split(socket);
        let (mut peer_reader, mut peer_writer) = peer.split();
        let sending = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let peer_sending = async {
            peer_writer.write_all(&sent).await.unwrap();
            peer_writer.shutdown().await.unwrap();
        };
        let (mut received, mut peer_received) = (Vec::new(), Vec::new());
        let (.., to_us, to_peer) = tokio::join!(
            sending,
            peer_sending,
            reader.read_to_end(&mut received),
            peer_reader.read_to_end(&mut peer_received)
        );
        assert_eq!((to_us.unwrap(), to_peer.unwrap()), (SIZE, SIZE));
        assert!(
            received == sent && peer_received == sent,
            "the bytes differ"
        );
    }

    #[tokio::test]
    async fn what_comes_in_parts_is_read_part_by_part() {
        let (mut socket, mut peer) = pair().await;
        for part in ["one", "another"] {
            peer.write_all(part.as_bytes()).await.unwrap();
            let mut read = [0; 64];
            let count = socket.read(&mut read).await.unwrap();
            assert_eq!(&read[..count], part.as_bytes());
        }
        drop(peer);
        assert_eq!(socket.read(&mut [0; 64]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_error_of_the_connection_is_what_is_read_and_written() {
        let (mut socket, peer) = pair().await;
        peer.set_zero_linger().unwrap();
        drop(peer);
        let error = socket.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let error = socket.write(b"late").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
