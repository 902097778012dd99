//! This machine's end of a connection: a socket, or a program's [`StreamIo`](super::StreamIo).

use std::{future::Future, io};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::forgotten;
use crate::sys::socket::tcp_counts;

/// What a connection is carried from and to. Reads and writes never wait by themselves.
pub trait LocalEnd: Send + Sync {
    /// From here on closing it is a reset, until [`Self::close_orderly`]: also when this process is killed and the
    /// kernel closes it. So its peer never takes what it got for the whole.
    fn reset_on_close(&self);

    /// Closing it is an orderly end: everything has arrived.
    fn close_orderly(&self);

    /// Resolves when there may be something to read.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Reads what there is into the room of the buffer; nothing means that its peer has closed.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where there is nothing yet.
    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize>;

    /// Resolves when it may take something.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Writes what it takes.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where it takes nothing yet.
    fn try_write(&self, data: &[u8]) -> io::Result<usize>;

    /// Bytes that it has taken and that have not reached its peer.
    fn unacknowledged(&self) -> u64;

    /// Its peer hears that nothing more comes.
    ///
    /// # Errors
    /// Where it was reset.
    fn finish(&self) -> io::Result<()>;

    /// Resolves when it is reset, even if nobody reads or writes it at that moment.
    fn until_reset(&self) -> impl Future<Output = io::Error> + Send;
}

impl LocalEnd for TcpStream {
    fn reset_on_close(&self) {
        reset(self);
        forgotten::ask_kernel(self);
        // Whoever sent the bytes has decided when: none wait here for the peer to acknowledge others.
        if let Err(error) = self.set_nodelay(true) {
            tracing::debug!(%error, "cannot disable Nagle's algorithm");
        }
    }

    fn close_orderly(&self) {
        if let Err(error) = SockRef::from(self).set_linger(None) {
            tracing::debug!(%error, "the socket was closed with a reset");
        }
    }

    async fn readable(&self) -> io::Result<()> {
        self.readable().await
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(buffer)
    }

    async fn writable(&self) -> io::Result<()> {
        self.writable().await
    }

    fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        self.try_write(data)
    }

    fn unacknowledged(&self) -> u64 {
        // Without an answer all has reached it.
        tcp_counts(self).map_or(0, |counts| counts.pending)
    }

    fn finish(&self) -> io::Result<()> {
        match SockRef::from(self).shutdown(std::net::Shutdown::Write) {
            // The peer is gone already: with everything it was sent, unless it was reset.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.take_error()?.map_or(Ok(()), Err)
            }
            end => end,
        }
    }

    fn until_reset(&self) -> impl Future<Output = io::Error> + Send {
        until_reset(self)
    }
}

/// Makes the closing of the socket a reset, so that its peer does not take what it got for the
/// whole.
pub fn reset(socket: &TcpStream) {
    if let Err(error) = socket.set_zero_linger() {
        tracing::debug!(%error, "the socket was closed without a reset");
    }
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
