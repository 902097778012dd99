//! What one connection has taken from its socket and the session has not sent yet.
//!
//! While a session's link is slower than the socket, every read would become a frame that waits, with
//! its buffer: of a service that writes single bytes, four KiB for each. So only a few frames may
//! wait; what comes meanwhile stays in the kernel, and one read takes all of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::tunnel::memory::{ConnectionShare, ReadMemory, SMALLEST_READ};

/// Frames of one connection that may wait to be sent.
const MOST_FRAMES: usize = 16;

/// Counts the frames that wait.
#[derive(Debug)]
pub(super) struct Unsent<'a> {
    share: &'a ConnectionShare,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: AtomicUsize,
    sent: Notify,
}

/// One frame's place among those that wait, and memory for it.
#[derive(Debug)]
pub(super) struct FramePlace {
    size: usize,
    _memory: ReadMemory,
    waiting: Arc<Waiting>,
}

/// A frame's bytes; dropped by `h2` once they are sent, or the stream is over.
struct Frame {
    bytes: BytesMut,
    _place: FramePlace,
}

impl<'a> Unsent<'a> {
    pub(super) fn new(share: &'a ConnectionShare) -> Self {
        Self {
            share,
            waiting: Arc::default(),
        }
    }

    /// Waits until another frame may wait: one of `size`, or a small one. Only one task asks.
    pub(super) async fn place(&self, size: usize) -> FramePlace {
        loop {
            if let Some(place) = self.try_place(size) {
                return place;
            }
            self.waiting.sent.notified().await;
        }
    }

    fn try_place(&self, size: usize) -> Option<FramePlace> {
        let (size, memory) = match self.waiting.frames.load(Ordering::Acquire) {
            // What a connection may always do.
            0 if size <= SMALLEST_READ => (size, self.share.own_read(size)),
            0 => self.share.read_of(size),
            1..MOST_FRAMES => (size, self.share.draw_read(size)?),
            MOST_FRAMES.. => return None,
        };
        self.waiting.frames.fetch_add(1, Ordering::Relaxed);
        Some(FramePlace {
            size,
            _memory: memory,
            waiting: Arc::clone(&self.waiting),
        })
    }
}

impl FramePlace {
    /// The most that the frame may hold.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The bytes as a frame, which keeps the place until it is sent.
    pub(super) fn frame(self, bytes: BytesMut) -> Bytes {
        Bytes::from_owner(Frame {
            bytes,
            _place: self,
        })
    }
}

impl Drop for FramePlace {
    fn drop(&mut self) {
        self.waiting.frames.fetch_sub(1, Ordering::Release);
        self.waiting.sent.notify_one();
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::tunnel::{Client, Memory};

    const FRAME: usize = 64 * 1024;

    #[test]
    fn a_frame_waits_for_others_to_be_sent_once_many_small_ones_wait() {
        let share = Memory::new(1 << 30, 1 << 18)
            .admit(Client::Machine)
            .unwrap();
        let unsent = Unsent::new(&share);
        let place = || unsent.place(1).now_or_never();
        let mut frames: Vec<_> = (0..MOST_FRAMES)
            .map(|_| place().unwrap().frame(BytesMut::from("x")))
            .collect();
        assert!(place().is_none());
        frames.pop();
        assert!(place().is_some());
    }

    #[test]
    fn without_memory_to_draw_a_connection_goes_on_with_one_small_read_at_a_time() {
        let memory = Memory::new(1 << 20, 1 << 18);
        let (greedy, modest) = (
            memory.admit(Client::Machine).unwrap(),
            memory.admit(Client::Machine).unwrap(),
        );
        let drawn: Vec<_> = std::iter::from_fn(|| greedy.draw_read(SMALLEST_READ)).collect();
        let unsent = Unsent::new(&modest);
        let first = unsent.place(FRAME).now_or_never().unwrap();
        assert_eq!(first.size(), SMALLEST_READ);
        assert!(unsent.place(FRAME).now_or_never().is_none());
        drop(first);
        assert!(unsent.place(FRAME).now_or_never().is_some());
        drop(drawn);
    }
}
