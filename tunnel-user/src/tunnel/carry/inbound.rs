//! Stream to socket.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::future::OptionFuture;
use tokio::{
    task::coop::consume_budget,
    time::{Instant, sleep},
};

use super::{
    CarryError, LocalEnd, SessionFlow,
    backlog::Backlog,
    window::{Change, PERIOD, Window},
};
use crate::tunnel::{memory::ConnectionShare, transport::http2::ReceiveHalf};

/// Counts what the socket took.
pub(super) struct Inbound<'a> {
    flow: &'a SessionFlow,
    share: &'a ConnectionShare,
    bytes: AtomicU64,
}

/// What one run of it keeps.
struct Receiving {
    stream: ReceiveHalf,
    /// Is dropped first: what it holds is counted as its window's as long as that is drawn.
    backlog: Backlog,
    window: Window,
    /// Bytes of the backlog that came with the dial, and not by the stream: its window has nothing to do with them.
    early: usize,
}

impl<'a> Inbound<'a> {
    pub(super) fn new(flow: &'a SessionFlow, share: &'a ConnectionShare) -> Self {
        Self {
            flow,
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
        stream: ReceiveHalf,
        arrived: Backlog,
        local: &impl LocalEnd,
    ) -> Result<(), CarryError> {
        let mut receiving = Receiving {
            stream,
            window: Window::new(self.share.growth(&self.flow.room), self.flow.largest_window),
            early: arrived.len(),
            backlog: arrived,
        };
        let mut all_arrived = false;
        let mut period = None;
        loop {
            self.write_backlog(&mut receiving, local)?;
            let has_backlog = !receiving.backlog.is_empty();
            if all_arrived && !has_backlog {
                return local.finish().map_err(CarryError::Socket);
            }
            // Boxed, and only then: thousands of connections have never grown.
            if period.is_none() && receiving.window.growth() > 0 {
                period = Some(Box::pin(sleep(PERIOD)));
            }
            tokio::select! {
                biased;
                writable = local.writable(), if has_backlog => {
                    writable.map_err(CarryError::Socket)?;
                }
                // Frames leave the transport although the socket takes nothing, see `backlog`.
                data = receiving.stream.data(), if !all_arrived => {
                    all_arrived = data.is_none();
                    match data {
                        Some(data) => self.take(&data?, &mut receiving, local)?,
                        None => self.end(&mut receiving),
                    }
                }
                _ = OptionFuture::from(period.as_mut()), if period.is_some() => {
                    period = None;
                    if receiving.backlog.is_empty() {
                        let change = receiving.window.rest();
                        Self::follow(change, &mut receiving)?;
                    }
                }
            }
            consume_budget().await;
        }
    }

    /// Hands a frame to the socket, and keeps what that does not take.
    fn take(
        &self,
        data: &[u8],
        receiving: &mut Receiving,
        local: &impl LocalEnd,
    ) -> Result<(), CarryError> {
        let mut written = 0;
        if receiving.backlog.is_empty() {
            while written < data.len() {
                match self.write(local, &data[written..])? {
                    0 => break,
                    more => written += more,
                }
            }
            self.release(written, receiving, local)?;
        }
        let left = &data[written..];
        if left.is_empty() {
            return Ok(());
        }
        let Receiving {
            window,
            backlog,
            early,
            ..
        } = receiving;
        let first = self.share.window();
        let beyond = (backlog.len() - *early + left.len()) as u64;
        window.has_come(beyond.saturating_sub(first + window.growth()));
        backlog.set_growth(window.growth());
        Ok(backlog.push(left, first + window.growth())?)
    }

    fn write_backlog(
        &self,
        receiving: &mut Receiving,
        local: &impl LocalEnd,
    ) -> Result<(), CarryError> {
        while !receiving.backlog.is_empty() {
            let written = self.write(local, receiving.backlog.front())?;
            if written == 0 {
                break;
            }
            receiving.backlog.consume(written);
            let early = written.min(receiving.early);
            receiving.early -= early;
            self.release(written - early, receiving, local)?;
        }
        Ok(())
    }

    /// Lets the other end send as much again as the socket has taken, and more or less where its window is to change.
    fn release(
        &self,
        written: usize,
        receiving: &mut Receiving,
        local: &impl LocalEnd,
    ) -> Result<(), CarryError> {
        if written == 0 {
            return Ok(());
        }
        let SessionFlow { round_trip, .. } = self.flow;
        let (now, first) = (Instant::now(), self.share.whole_window());
        let waiting = || local.unacknowledged();
        let change = receiving
            .window
            .took(written, waiting, now, round_trip.get(), first);
        if change.measure {
            round_trip.want();
        }
        receiving.stream.release(written)?;
        Self::follow(change, receiving)
    }

    /// No more will come: what waits is all that its window is needed for.
    fn end(&self, receiving: &mut Receiving) {
        let waits = receiving.backlog.len() as u64;
        receiving
            .window
            .end(waits.saturating_sub(self.share.window()));
        receiving.backlog.set_growth(receiving.window.growth());
    }

    fn follow(change: Change, receiving: &mut Receiving) -> Result<(), CarryError> {
        receiving.backlog.set_growth(receiving.window.growth());
        if change.larger != 0 {
            receiving.stream.widen(change.larger)?;
        }
        Ok(())
    }

    /// What the socket takes without waiting.
    fn write(&self, local: &impl LocalEnd, data: &[u8]) -> Result<usize, CarryError> {
        match local.try_write(data) {
            Ok(written) => {
                self.bytes.fetch_add(written as u64, Ordering::Relaxed);
                self.flow.counters.given(written as u64);
                Ok(written)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(CarryError::Socket(error)),
        }
    }
}
