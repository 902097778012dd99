//! Socket to stream.

use std::{
    future::poll_fn,
    io,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use tokio::net::TcpStream;

use super::{
    CarryError, Meter,
    unsent::{FramePlace, Unsent},
};
use crate::{
    grpc::capacity,
    tunnel::{
        memory::{ConnectionShare, SMALLEST_READ},
        settings::FRAME_SIZE,
    },
};

/// The first read of a connection: a request, a log line.
const SMALL_READ: usize = SMALLEST_READ;
/// A read never exceeds a frame.
const LARGE_READ: usize = FRAME_SIZE as usize;

/// The state that survives when [`Outbound::run`] is dropped and started again.
pub(super) struct Outbound<'a> {
    meter: &'a Meter,
    bytes: AtomicU64,
    next_read: AtomicUsize,
    unsent: Unsent<'a>,
}

impl<'a> Outbound<'a> {
    pub(super) fn new(meter: &'a Meter, share: &'a ConnectionShare) -> Self {
        Self {
            meter,
            bytes: AtomicU64::new(0),
            next_read: AtomicUsize::new(SMALL_READ),
            unsent: Unsent::new(share),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Sends until the socket's peer has closed, then ends the stream. Dropping it at any point
    /// loses nothing: between a read and its sending there is no wait.
    pub(super) async fn run(
        &self,
        socket: &TcpStream,
        stream: &mut SendStream<Bytes>,
    ) -> Result<(), CarryError> {
        loop {
            // An idle connection holds neither a buffer nor a share of the session's window.
            tokio::select! {
                ready = socket.readable() => ready.map_err(CarryError::Socket)?,
                reason = reset_by_peer(stream) => return Err(reason),
            }
            let room = room(stream).await?;
            let place = self.place(stream, room).await?;
            match self.read(socket, place) {
                Ok(data) if data.is_empty() => return Ok(stream.send_data(data, true)?),
                Ok(data) => stream.send_data(data, false)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stream.reserve_capacity(0);
                }
                Err(error) => return Err(CarryError::Socket(error)),
            }
        }
    }

    /// Waits until little enough of this connection waits to be sent.
    async fn place(
        &self,
        stream: &mut SendStream<Bytes>,
        room: usize,
    ) -> Result<FramePlace, CarryError> {
        let size = self.next_read.load(Ordering::Relaxed).min(room);
        tokio::select! {
            biased;
            place = self.unsent.place(size) => Ok(place),
            reason = reset_by_peer(stream) => Err(reason),
        }
    }

    /// Reads what is there and has a place; nothing means that the peer has closed. Buffers grow
    /// with what the connection delivers and are never kept.
    fn read(&self, socket: &TcpStream, place: FramePlace) -> io::Result<Bytes> {
        let buffer_size = self.next_read.load(Ordering::Relaxed);
        let size = place.size();
        let mut buffer = BytesMut::with_capacity(size);
        let read = socket.try_read_buf(&mut buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        self.meter.taken(read as u64);
        let next_read = match read {
            read if read == size => buffer_size * 4,
            read => read.next_power_of_two(),
        };
        let next_read = next_read.clamp(SMALL_READ, LARGE_READ);
        self.next_read.store(next_read, Ordering::Relaxed);
        Ok(place.frame(buffer))
    }
}

/// Waits until flow control lets something through, and says how much.
async fn room(stream: &mut SendStream<Bytes>) -> Result<usize, CarryError> {
    stream.reserve_capacity(LARGE_READ);
    match capacity(stream).await? {
        Some(room) => Ok(room),
        // No longer streaming: the other end has reset it.
        None => Err(reset_by_peer(stream).await),
    }
}

/// Resolves when the other end has reset the stream, or the session has ended.
pub(super) async fn reset_by_peer(stream: &mut SendStream<Bytes>) -> CarryError {
    match poll_fn(|cx| stream.poll_reset(cx)).await {
        Ok(reason) => CarryError::Reset(reason),
        Err(error) => error.into(),
    }
}
