//! Stream to socket.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use h2::RecvStream;
use socket2::SockRef;
use tokio::{net::TcpStream, task::coop::consume_budget};

use super::{CarryError, Meter, backlog::Backlog};
use crate::tunnel::memory::ConnectionShare;

/// Counts what the socket took.
pub(super) struct Inbound<'a> {
    meter: &'a Meter,
    share: &'a ConnectionShare,
    bytes: AtomicU64,
}

impl<'a> Inbound<'a> {
    pub(super) fn new(meter: &'a Meter, share: &'a ConnectionShare) -> Self {
        Self {
            meter,
            share,
            bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes until the stream ends, then closes the socket's sending side.
    pub(super) async fn run(
        &self,
        mut stream: RecvStream,
        socket: &TcpStream,
    ) -> Result<(), CarryError> {
        let mut backlog = Backlog::new(self.share.received());
        let mut all_arrived = false;
        loop {
            self.write_backlog(&mut backlog, &mut stream, socket)?;
            if all_arrived && backlog.is_empty() {
                return close(socket).map_err(CarryError::Socket);
            }
            tokio::select! {
                biased;
                writable = socket.writable(), if !backlog.is_empty() => {
                    writable.map_err(CarryError::Socket)?;
                }
                // Frames leave `h2` although the socket takes nothing, see `backlog`.
                data = stream.data(), if !all_arrived => match data {
                    Some(data) => self.take(&data?, &mut backlog, &mut stream, socket)?,
                    None => all_arrived = true,
                },
            }
            consume_budget().await;
        }
    }

    /// Hands a frame to the socket, and keeps what that does not take.
    fn take(
        &self,
        data: &[u8],
        backlog: &mut Backlog,
        stream: &mut RecvStream,
        socket: &TcpStream,
    ) -> Result<(), CarryError> {
        let mut written = 0;
        if backlog.is_empty() {
            while written < data.len() {
                match self.write(socket, &data[written..])? {
                    0 => break,
                    more => written += more,
                }
            }
            stream.flow_control().release_capacity(written)?;
        }
        backlog.push(&data[written..], self.share.window())?;
        Ok(())
    }

    fn write_backlog(
        &self,
        backlog: &mut Backlog,
        stream: &mut RecvStream,
        socket: &TcpStream,
    ) -> Result<(), CarryError> {
        while !backlog.is_empty() {
            let written = self.write(socket, backlog.front())?;
            if written == 0 {
                break;
            }
            backlog.consume(written)?;
            stream.flow_control().release_capacity(written)?;
        }
        Ok(())
    }

    /// What the socket takes without waiting.
    fn write(&self, socket: &TcpStream, data: &[u8]) -> Result<usize, CarryError> {
        match socket.try_write(data) {
            Ok(written) => {
                self.bytes.fetch_add(written as u64, Ordering::Relaxed);
                self.meter.given(written as u64);
                Ok(written)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(CarryError::Socket(error)),
        }
    }
}

/// Closes the socket's sending side.
fn close(socket: &TcpStream) -> io::Result<()> {
    match SockRef::from(socket).shutdown(std::net::Shutdown::Write) {
        // The peer is gone already: with everything it was sent, unless it was reset.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
            socket.take_error()?.map_or(Ok(()), Err)
        }
        end => end,
    }
}
