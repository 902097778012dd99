//! The memory that connections hold, of all sessions of this process together.
//!
//! A connection that is let in has a share for sure (see [`shares`]), so it always makes progress; one
//! for which there is no share is refused, and none is harmed. Beyond the shares there are two things:
//!
//! - Receive windows. What a peer may send it can send at any moment, so room is kept for all of it:
//!   windows shrink for all connections as more are opened and more is held, and grow again. Sessions
//!   follow [`Memory::windows`] with SETTINGS.
//! - Reads that wait to be sent. Here this end decides, so they are drawn from what is there.
//!
//! What a window [grows](growth) beyond that, its connection draws from the first of these.

mod growth;
mod shares;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

use self::{growth::half_beside, shares::Shares};
pub(crate) use self::{
    growth::{Growth, SessionRoom},
    shares::{SMALLEST_READ, SMALLEST_WINDOW},
};
use super::places::{Client, NoPlace, Places};
use crate::observability::metrics::ConnectionMemory;

/// Bytes that connections hold, and may hold. Clones are the same.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    shares: Shares,
    first_window: u32,
    open: Mutex<Places>,
    /// `memory --first window of each connection--> sessions`
    window: watch::Sender<u32>,
    /// What windows are larger than that, together.
    grown: AtomicU64,
    received: AtomicU64,
    /// Of those, what is beyond the smallest windows and what these have grown.
    beyond: AtomicU64,
    /// Of those, what is beyond the first windows and what these have grown: peers were told of it by windows that have
    /// shrunk.
    uncovered: AtomicU64,
    unsent: AtomicU64,
    /// Of those, what was drawn.
    drawn: AtomicU64,
}

/// A connection's share, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct ConnectionShare {
    memory: Memory,
    client: Client,
}

/// What one connection holds of received bytes.
#[derive(Debug)]
pub(crate) struct Received {
    memory: Memory,
    bytes: u64,
    /// What its window has grown.
    growth: u64,
}

/// What one read holds until it is sent.
#[derive(Debug)]
pub(crate) struct ReadMemory {
    memory: Memory,
    bytes: u64,
    drawn: u64,
}

/// All peers together have filled more than their windows are now, and this one is among them.
#[derive(Debug, thiserror::Error)]
#[error("the other end has sent more than its window is now, and there is no memory for it")]
pub struct Overflow;

impl Memory {
    /// The memory of a process that may use `limit` bytes in all, and whose connections begin with windows
    /// of `first_window` as long as they fit.
    pub fn new(limit: u64, first_window: u32) -> Self {
        let shares = Shares::of(limit);
        Self(Arc::new(Counts {
            shares,
            first_window,
            open: Mutex::new(Places::new(shares.connections())),
            window: watch::Sender::new(shares.window(0, 0, first_window)),
            grown: AtomicU64::new(0),
            received: AtomicU64::new(0),
            beyond: AtomicU64::new(0),
            uncovered: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            drawn: AtomicU64::new(0),
        }))
    }

    /// What connections may hold altogether.
    pub fn limit(&self) -> u64 {
        self.0.shares.for_connections()
    }

    /// How many may be open.
    pub fn most_connections(&self) -> u32 {
        self.0.shares.connections()
    }

    /// What they hold of what they carry.
    pub fn held(&self) -> u64 {
        let Counts {
            received, unsent, ..
        } = &*self.0;
        received.load(Ordering::Relaxed) + unsent.load(Ordering::Relaxed)
    }

    /// How much that is, and of how much.
    pub fn read(&self) -> ConnectionMemory {
        ConnectionMemory {
            held: self.held(),
            limit: self.limit(),
            window: self.window(),
            grown: self.0.grown.load(Ordering::Relaxed),
        }
    }

    /// The window that each connection has at least, as it changes.
    pub(crate) fn windows(&self) -> watch::Receiver<u32> {
        self.0.window.subscribe()
    }

    /// The window that each connection has now, at least.
    pub(crate) fn window(&self) -> u32 {
        *self.0.window.borrow()
    }

    /// A share for another connection, of those that its client may have.
    pub(crate) fn admit(&self, client: Client) -> Result<ConnectionShare, NoPlace> {
        let mut open = self.open();
        open.take(client)?;
        self.resize(&open);
        drop(open);
        Ok(ConnectionShare {
            memory: self.clone(),
            client,
        })
    }

    fn resize(&self, open: &Places) {
        let Counts {
            shares,
            first_window,
            window,
            grown,
            beyond,
            ..
        } = &*self.0;
        let (held, grown) = (
            beyond.load(Ordering::Relaxed),
            grown.load(Ordering::Relaxed),
        );
        window.send_if_modified(|window| {
            let next = shares.next_window(*window, open.taken(), held, grown, *first_window);
            std::mem::replace(window, next) != next
        });
    }

    /// Lets a window of a session grow by up to so many bytes, where the session has drawn that much.
    fn draw_window(&self, wanted: u64, of_session: u64) -> u64 {
        let Counts {
            shares,
            first_window,
            grown,
            beyond,
            ..
        } = &*self.0;
        let open = self.open();
        let (held, drawn) = (
            beyond.load(Ordering::Relaxed),
            grown.load(Ordering::Relaxed),
        );
        let left = shares.growth(open.taken(), held, drawn, *first_window);
        let granted = wanted.min(half_beside(of_session, left));
        grown.fetch_add(granted, Ordering::Relaxed);
        granted
    }

    fn give_back_window(&self, bytes: u64) {
        if bytes > 0 {
            self.0.grown.fetch_sub(bytes, Ordering::Relaxed);
            self.resize(&self.open());
        }
    }

    fn open(&self) -> MutexGuard<'_, Places> {
        // Places are counted whole between any two operations, whatever panicked meanwhile.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionShare {
    /// An account of what the connection receives.
    pub(crate) fn received(&self) -> Received {
        Received {
            memory: self.memory.clone(),
            bytes: 0,
            growth: 0,
        }
    }

    /// An account of what its window grows, in a session that has this room for it.
    pub(crate) fn growth(&self, room: &SessionRoom) -> Growth {
        Growth::new(self.memory.clone(), room.clone())
    }

    /// What the other end may send before this end takes any of it, without growth.
    pub(crate) fn window(&self) -> u64 {
        self.memory.window().into()
    }

    /// The same; `None` if it is less than it should be, for memory is scarce.
    pub(crate) fn whole_window(&self) -> Option<u64> {
        let window = self.memory.window();
        (window >= self.memory.0.first_window).then(|| window.into())
    }

    /// Memory for one read of the connection's own share.
    pub(crate) fn own_read(&self, bytes: usize) -> ReadMemory {
        self.read_memory(bytes as u64, 0)
    }

    /// Memory for one read, if there is some left beyond the shares.
    pub(crate) fn draw_read(&self, bytes: usize) -> Option<ReadMemory> {
        let (bytes, limit) = (bytes as u64, self.memory.0.shares.unsent());
        let drawn = &self.memory.0.drawn;
        let within = |drawn: u64| Some(drawn + bytes).filter(|drawn| *drawn <= limit);
        drawn
            .try_update(Ordering::Relaxed, Ordering::Relaxed, within)
            .ok()?;
        Some(self.read_memory(bytes, bytes))
    }

    /// Memory for one read of up to `wanted` bytes, and of how many: if there is none left beyond the shares, of as
    /// many as the connection's own share lets it.
    pub(crate) fn read_of(&self, wanted: usize) -> (usize, ReadMemory) {
        let drawn = self.draw_read(wanted).map(|memory| (wanted, memory));
        drawn.unwrap_or_else(|| {
            let own = wanted.min(SMALLEST_READ);
            (own, self.own_read(own))
        })
    }

    fn read_memory(&self, bytes: u64, drawn: u64) -> ReadMemory {
        self.memory.0.unsent.fetch_add(bytes, Ordering::Relaxed);
        ReadMemory {
            memory: self.memory.clone(),
            bytes,
            drawn,
        }
    }
}

impl Drop for ConnectionShare {
    fn drop(&mut self) {
        let mut open = self.memory.open();
        open.leave(self.client);
        self.memory.resize(&open);
    }
}

impl Received {
    /// The connection holds more now. Windows keep all connections together within the limit; where a peer fills more
    /// than is drawn for its own, and there is nothing left for that, its connection is the one that cannot go on.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Overflow> {
        self.count(bytes as u64, self.growth);
        let Counts {
            beyond,
            uncovered,
            grown,
            shares,
            first_window,
            ..
        } = &*self.memory.0;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let exceeds = |window: u32| self.bytes > u64::from(window) + self.growth;
        let has_overfilled =
            exceeds(self.memory.window()) && load(beyond) + load(grown) > shares.received();
        let is_uncovered = exceeds(*first_window) && load(uncovered) > shares.uncovered();
        if has_overfilled || is_uncovered {
            return Err(Overflow);
        }
        Ok(())
    }

    /// It holds less now.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        self.count(bytes as u64, self.growth);
    }

    /// Its window has grown by so much in all.
    pub(crate) fn set_growth(&mut self, growth: u64) {
        if self.growth != growth {
            self.count(self.bytes, growth);
        }
    }

    fn count(&mut self, bytes: u64, growth: u64) {
        let Counts {
            received,
            beyond,
            uncovered,
            first_window,
            ..
        } = &*self.memory.0;
        let (had, has) = ((self.bytes, self.growth), (bytes, growth));
        (self.bytes, self.growth) = has;
        // Wrapping, so that the difference may be negative.
        received.fetch_add(has.0.wrapping_sub(had.0), Ordering::Relaxed);
        let exceeding = |window: u32, (bytes, growth): (u64, u64)| {
            bytes.saturating_sub(u64::from(window) + growth)
        };
        let recount = |count: &AtomicU64, window: u32| {
            let (had, has) = (exceeding(window, had), exceeding(window, has));
            count.fetch_add(has.wrapping_sub(had), Ordering::Relaxed);
            had != has
        };
        recount(uncovered, *first_window);
        if recount(beyond, SMALLEST_WINDOW) {
            self.memory.resize(&self.memory.open());
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.count(0, 0);
    }
}

impl Drop for ReadMemory {
    fn drop(&mut self) {
        let Counts { unsent, drawn, .. } = &*self.memory.0;
        unsent.fetch_sub(self.bytes, Ordering::Relaxed);
        drawn.fetch_sub(self.drawn, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
