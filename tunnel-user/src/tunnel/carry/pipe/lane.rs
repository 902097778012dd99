//! One direction of a [pipe](super): bytes, how they end, and who waits for either.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll, Waker},
};

/// Bytes in order; empty, it holds no memory.
#[derive(Debug)]
pub(super) struct Lane {
    capacity: usize,
    bytes: VecDeque<u8>,
    end: Option<End>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Who watches for a reset, whether it reads or not.
    watcher: Option<Waker>,
}

/// How a lane ends. Whatever was written before is read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By its writer.
    Finished,
    /// By either side, before everything was said.
    Reset,
}

impl Lane {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            bytes: VecDeque::new(),
            end: None,
            reader: None,
            writer: None,
            watcher: None,
        }
    }

    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes.is_empty() && self.end.is_none() {
            return wait(&mut self.reader, cx);
        }
        Poll::Ready(())
    }

    /// Hands over up to so many bytes.
    pub(super) fn read(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return match self.end {
                None => Err(io::ErrorKind::WouldBlock.into()),
                Some(End::Finished) => Ok(0),
                Some(End::Reset) => Err(io::ErrorKind::ConnectionReset.into()),
            };
        }
        let count = most.min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let of_front = count.min(front.len());
        take(&front[..of_front]);
        take(&back[..count - of_front]);
        self.bytes.drain(..count);
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
        wake(&mut self.writer);
        Ok(count)
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes.len() >= self.capacity && self.end.is_none() {
            return wait(&mut self.writer, cx);
        }
        Poll::Ready(())
    }

    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.end.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = data.len().min(self.capacity - self.bytes.len());
        if count == 0 && !data.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.extend(&data[..count]);
        wake(&mut self.reader);
        Ok(count)
    }

    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.end != Some(End::Reset) {
            return wait(&mut self.watcher, cx);
        }
        Poll::Ready(())
    }

    /// The first end counts.
    pub(super) fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        for waiting in [&mut self.reader, &mut self.writer, &mut self.watcher] {
            wake(waiting);
        }
    }
}

fn wait(waiting: &mut Option<Waker>, cx: &Context<'_>) -> Poll<()> {
    *waiting = Some(cx.waker().clone());
    Poll::Pending
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waiting) = waiting.take() {
        waiting.wake();
    }
}
