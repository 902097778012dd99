//! Socket to stream.

use std::{
    io,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::{Bytes, BytesMut};

use super::{
    ByteCounters, CarryError, LocalEnd,
    unsent::{FramePlace, Unsent},
};
use crate::tunnel::{
    memory::{ConnectionShare, SMALLEST_READ},
    settings::FRAME_SIZE,
    transport::http2::SendHalf,
};

/// The first read of a connection: a request, a log line.
const SMALL_READ: usize = SMALLEST_READ;
/// A read never exceeds a frame.
const LARGE_READ: usize = FRAME_SIZE as usize;

/// The state that survives when [`Outbound::run`] is dropped and started again.
pub(super) struct Outbound<'a> {
    counters: &'a ByteCounters,
    bytes: AtomicU64,
    next_read: AtomicUsize,
    unsent: Unsent<'a>,
}

impl<'a> Outbound<'a> {
    /// For a connection of which so many bytes have been sent already.
    pub(super) fn new(counters: &'a ByteCounters, share: &'a ConnectionShare, sent: u64) -> Self {
        counters.taken(sent);
        Self {
            counters,
            bytes: AtomicU64::new(sent),
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
        local: &impl LocalEnd,
        stream: &mut SendHalf,
    ) -> Result<(), CarryError> {
        loop {
            // An idle connection holds neither a buffer nor a share of the session's window.
            tokio::select! {
                ready = local.readable() => ready.map_err(CarryError::Socket)?,
                error = stream.until_reset() => return Err(error.into()),
            }
            let room = stream.room(LARGE_READ).await?;
            let place = self.place(stream, room).await?;
            match self.read(local, place) {
                Ok(data) if data.is_empty() => return Ok(stream.finish()?),
                Ok(data) => stream.send(data)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stream.give_room_back();
                }
                Err(error) => return Err(CarryError::Socket(error)),
            }
        }
    }

    /// Waits until little enough of this connection waits to be sent.
    async fn place(&self, stream: &mut SendHalf, room: usize) -> Result<FramePlace, CarryError> {
        let size = self.next_read.load(Ordering::Relaxed).min(room);
        tokio::select! {
            biased;
            place = self.unsent.place(size) => Ok(place),
            error = stream.until_reset() => Err(error.into()),
        }
    }

    /// Reads what is there and has a place; nothing means that the peer has closed. Buffers grow
    /// with what the connection delivers and are never kept.
    fn read(&self, local: &impl LocalEnd, place: FramePlace) -> io::Result<Bytes> {
        let buffer_size = self.next_read.load(Ordering::Relaxed);
        let size = place.size();
        let mut buffer = BytesMut::with_capacity(size);
        let read = local.try_read(&mut buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        self.counters.taken(read as u64);
        let next_read = match read {
            read if read == size => buffer_size * 4,
            read => read.next_power_of_two(),
        };
        let next_read = next_read.clamp(SMALL_READ, LARGE_READ);
        self.next_read.store(next_read, Ordering::Relaxed);
        Ok(place.frame(buffer))
    }
}
