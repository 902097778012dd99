//! Stream to socket.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use h2::RecvStream;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{CarryError, Meter};

/// Counts what the socket took.
pub(super) struct Inbound<'a> {
    meter: &'a Meter,
    bytes: AtomicU64,
}

impl<'a> Inbound<'a> {
    pub(super) fn new(meter: &'a Meter) -> Self {
        Self {
            meter,
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
        while let Some(data) = stream.data().await {
            let data = data?;
            self.write_all(socket, &data)
                .await
                .map_err(CarryError::Socket)?;
            stream.flow_control().release_capacity(data.len())?;
        }
        match SockRef::from(socket).shutdown(std::net::Shutdown::Write) {
            // The peer is gone already: with everything it was sent, unless it was reset.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                let reset = socket.take_error().map_err(CarryError::Socket)?;
                reset.map_or(Ok(()), |reset| Err(CarryError::Socket(reset)))
            }
            end => end.map_err(CarryError::Socket),
        }
    }

    async fn write_all(&self, socket: &TcpStream, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            socket.writable().await?;
            match socket.try_write(data) {
                Ok(written) => {
                    self.bytes.fetch_add(written as u64, Ordering::Relaxed);
                    self.meter.given(written as u64);
                    data = &data[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
