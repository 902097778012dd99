//! What has arrived and the socket has not taken yet.
//!
//! `h2` keeps a received frame with about 258 bytes of its own. Of a peer that writes single bytes to
//! a reader that has stopped, a window of 256 KiB would be 66 MB. So frames do not stay there: whatever
//! the socket does not take at once is copied into one contiguous buffer, which the connection's window
//! bounds and which holds no more than it counts.

use std::collections::VecDeque;

use crate::tunnel::memory::{Overflow, Received};

/// Bytes in order, counted with the room that is kept for them. Empty, it holds no memory.
#[derive(Debug)]
pub(crate) struct Backlog {
    bytes: VecDeque<u8>,
    received: Received,
}

impl Backlog {
    pub(crate) fn new(received: Received) -> Self {
        Self {
            bytes: VecDeque::new(),
            received,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The window has grown by so much, or has shrunk to it.
    pub(super) fn set_growth(&mut self, growth: u64) {
        self.received.set_growth(growth);
    }

    /// Takes what comes next. The buffer doubles, but not beyond the window.
    pub(crate) fn push(&mut self, data: &[u8], window: u64) -> Result<(), Overflow> {
        let needed = self.bytes.len() + data.len();
        if needed > self.bytes.capacity() {
            // Where more has arrived than the present window, it grows in steps nevertheless.
            let most = usize::try_from(window).unwrap_or(usize::MAX);
            let most = if needed <= most {
                most
            } else {
                needed + needed / 8
            };
            let capacity = (self.bytes.capacity() * 2).max(needed).min(most);
            self.bytes.reserve_exact(capacity - self.bytes.len());
            self.received.grow(self.bytes.capacity())?;
        }
        self.bytes.extend(data);
        Ok(())
    }

    /// The first bytes that lie in one piece.
    pub(super) fn front(&self) -> &[u8] {
        let (front, back) = self.bytes.as_slices();
        if front.is_empty() { back } else { front }
    }

    /// Drops as many of the first bytes, and the room that they leave.
    pub(super) fn consume(&mut self, count: usize) {
        self.bytes.drain(..count);
        let (length, capacity) = (self.bytes.len(), self.bytes.capacity());
        if length <= capacity / 4 {
            self.bytes.shrink_to(length * 2);
            self.received.shrink(self.bytes.capacity());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::{Client, Memory};

    fn backlog(memory: &Memory) -> Backlog {
        Backlog::new(memory.admit(Client::Machine).unwrap().received())
    }

    #[test]
    fn bytes_come_out_in_order_and_an_empty_one_holds_nothing() {
        let memory = Memory::new(1 << 20, 1 << 16);
        let mut backlog = backlog(&memory);
        let (mut pushed, mut popped) = (Vec::new(), Vec::new());
        for round in 0..50_u8 {
            let piece = vec![round; usize::from(round) % 7 + 1];
            pushed.extend_from_slice(&piece);
            backlog.push(&piece, 64).unwrap();
            let front = backlog.front();
            let count = front.len().min(3);
            popped.extend_from_slice(&front[..count]);
            backlog.consume(count);
        }
        assert!(memory.held() >= (pushed.len() - popped.len()) as u64);
        while !backlog.is_empty() {
            let count = backlog.front().len();
            popped.extend_from_slice(backlog.front());
            backlog.consume(count);
        }
        assert_eq!(popped, pushed);
        assert_eq!((backlog.bytes.capacity(), memory.held()), (0, 0));
    }

    #[test]
    fn it_grows_no_further_than_the_window_and_shrinks_with_what_is_left() {
        let memory = Memory::new(1 << 20, 1 << 16);
        let mut backlog = backlog(&memory);
        for _ in 0..1000 {
            backlog.push(&[0], 1000).unwrap();
        }
        assert_eq!(memory.held(), 1000);
        backlog.consume(900);
        assert_eq!(memory.held(), 200);
    }
}
