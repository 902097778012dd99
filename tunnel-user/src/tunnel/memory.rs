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
//! A window that grows with its link will have to draw from the first of these.

mod shares;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

use self::shares::Shares;
pub(crate) use self::shares::{SMALLEST_READ, SMALLEST_WINDOW};
use super::places::{Client, NoPlace, Places};
use crate::observability::metrics::ConnectionMemory;

/// Bytes that connections hold, and may hold. Clones are the same.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shares: Shares,
    largest_window: u32,
    open: Mutex<Places>,
    /// `memory --window of each connection--> sessions`
    window: watch::Sender<u32>,
    received: AtomicU64,
    /// Of those, what is beyond the smallest windows.
    beyond: AtomicU64,
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
}

/// What one read holds until it is sent.
#[derive(Debug)]
pub(crate) struct ReadMemory {
    memory: Memory,
    bytes: u64,
    drawn: u64,
}

/// All peers together have sent more than their windows allow, and this one is among them.
#[derive(Debug, thiserror::Error)]
#[error("the other end sends more than its window, and the memory for connections is used up")]
pub struct Overflow;

impl Memory {
    /// The memory of a process that may use `limit` bytes in all, and whose connections have windows
    /// of `largest_window` as long as they fit.
    pub fn new(limit: u64, largest_window: u32) -> Self {
        let shares = Shares::of(limit);
        Self(Arc::new(Shared {
            shares,
            largest_window,
            open: Mutex::new(Places::new(shares.connections())),
            window: watch::Sender::new(shares.window(0, 0, largest_window)),
            received: AtomicU64::new(0),
            beyond: AtomicU64::new(0),
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
        let Shared {
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
        }
    }

    /// The window that each connection has, as it changes.
    pub(crate) fn windows(&self) -> watch::Receiver<u32> {
        self.0.window.subscribe()
    }

    /// The window that each connection has now.
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
        let Shared {
            shares,
            largest_window,
            window,
            beyond,
            ..
        } = &*self.0;
        let held = beyond.load(Ordering::Relaxed);
        window.send_if_modified(|window| {
            let next = shares.next_window(*window, open.taken(), held, *largest_window);
            std::mem::replace(window, next) != next
        });
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
        }
    }

    /// The most that the other end may send before this end takes any of it.
    pub(crate) fn window(&self) -> usize {
        self.memory.window() as usize
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
    /// The connection holds as many bytes now. Windows keep all of them together within the limit;
    /// where a peer does not keep to its own, its connection is the one that cannot go on.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Overflow> {
        let window = u64::from(self.memory.window());
        let grown = bytes as u64 > self.bytes;
        self.count(bytes as u64);
        let Shared { beyond, shares, .. } = &*self.memory.0;
        if grown && self.bytes > window && beyond.load(Ordering::Relaxed) > shares.received() {
            return Err(Overflow);
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        let Shared {
            received, beyond, ..
        } = &*self.memory.0;
        let of_window = |bytes: u64| bytes.saturating_sub(u64::from(SMALLEST_WINDOW));
        let (had, has) = (of_window(self.bytes), of_window(bytes));
        // Wrapping, so that the difference may be negative.
        received.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
        if had != has {
            beyond.fetch_add(has.wrapping_sub(had), Ordering::Relaxed);
            self.memory.resize(&self.memory.open());
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.count(0);
    }
}

impl Drop for ReadMemory {
    fn drop(&mut self) {
        let Shared { unsent, drawn, .. } = &*self.memory.0;
        unsent.fetch_sub(self.bytes, Ordering::Relaxed);
        drawn.fetch_sub(self.drawn, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const KIB: usize = 1024;

    /// Memory for 39 connections, four of which have whole windows of 64 KiB.
    fn memory() -> Memory {
        let memory = Memory::new((1 << 20) / 5 * 8, 64 * 1024);
        assert_eq!(memory.most_connections(), 39);
        memory
    }

    #[test]
    fn windows_shrink_for_those_who_come_and_nobody_is_let_in_beyond_the_last_share() {
        let memory = memory();
        let mut open: Vec<ConnectionShare> = Vec::new();
        let mut windows = Vec::new();
        while let Ok(share) = memory.admit(Client::Machine) {
            open.push(share);
            windows.push(memory.window() / 1024);
        }
        assert_eq!(open.len(), 39);
        windows.dedup();
        assert_eq!(windows, [64, 32, 16, 8]);
        open.truncate(3);
        assert_eq!(memory.window() / 1024, 64);
    }

    #[test]
    fn one_client_leaves_shares_to_others() {
        let memory = memory();
        let pod = Client::Address(IpAddr::from([10, 244, 0, 1]));
        let mut open = Vec::new();
        let refused = loop {
            match memory.admit(pod) {
                Ok(share) => open.push(share),
                Err(refused) => break refused,
            }
        };
        assert_eq!((open.len(), refused), (19, NoPlace::ClientFull(19)));
        assert!(memory.admit(Client::Machine).is_ok());
    }

    #[test]
    fn reads_are_drawn_while_there_is_something_and_come_back() {
        let memory = memory();
        let share = memory.admit(Client::Machine).unwrap();
        let mut reads = Vec::new();
        while let Some(read) = share.draw_read(16 * KIB) {
            reads.push(read);
        }
        assert_eq!(reads.len(), 3);
        reads.push(share.own_read(SMALLEST_READ));
        assert_eq!(memory.held(), 3 * 16 * 1024 + 4 * 1024);
        reads.clear();
        assert_eq!(memory.held(), 0);
        assert!(share.draw_read(16 * KIB).is_some());
    }

    #[test]
    fn a_peer_that_does_not_keep_to_its_window_is_cut_off_before_others_are() {
        let memory = memory();
        let shares: Vec<_> = (0..2)
            .map(|_| memory.admit(Client::Machine).unwrap())
            .collect();
        let (mut greedy, mut modest) = (shares[0].received(), shares[1].received());
        let all = usize::try_from(memory.0.shares.received()).unwrap() + 8 * KIB;
        greedy.set(all).unwrap();
        assert_eq!(memory.window(), SMALLEST_WINDOW);
        modest.set(8 * KIB).unwrap();
        assert!(greedy.set(all + 1).is_err());
        drop(greedy);
        assert_eq!(memory.held(), 8 * 1024);
        assert_eq!(memory.window(), 64 * 1024);
    }
}
