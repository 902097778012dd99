//! What windows are larger than the first one: drawn, for as long as their readers make use of it.
//!
//! ```text
//!  process   half of what is left of receive windows' memory, and never so much that others' would shrink
//!  session   half of what is left of `--session-memory`
//! ```
//! Half of the rest, each time: however many have grown, there is something for the next.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::Memory;

/// What the windows of one session may be larger than the first, all together. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SessionRoom(Arc<Room>);

#[derive(Debug)]
struct Room {
    limit: u64,
    drawn: AtomicU64,
}

/// What one window is larger than the first.
#[derive(Debug)]
pub(crate) struct Growth {
    memory: Memory,
    room: SessionRoom,
    bytes: u64,
}

impl SessionRoom {
    pub(crate) fn new(limit: u64) -> Self {
        Self(Arc::new(Room {
            limit,
            drawn: AtomicU64::new(0),
        }))
    }

    /// Takes up to so many bytes for a window that has `own`; returns how many, and what all windows had before.
    fn draw(&self, wanted: u64, own: u64) -> (u64, u64) {
        let Room { limit, drawn } = &*self.0;
        let granted = |drawn: u64| wanted.min(half_beside(own, limit.saturating_sub(drawn)));
        let before = drawn.update(Ordering::Relaxed, Ordering::Relaxed, |drawn| {
            drawn + granted(drawn)
        });
        (granted(before), before)
    }

    fn give_back(&self, bytes: u64) {
        self.0.drawn.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Growth {
    pub(super) fn new(memory: Memory, room: SessionRoom) -> Self {
        Self {
            memory,
            room,
            bytes: 0,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Grows by that much, or by as much as there is, and says by how much.
    pub(crate) fn grow(&mut self, wanted: u64) -> u64 {
        let (of_session, drawn) = self.room.draw(wanted, self.bytes);
        let granted = match of_session {
            0 => 0,
            of_session => self.memory.draw_window(of_session, drawn),
        };
        self.room.give_back(of_session - granted);
        self.bytes += granted;
        granted
    }

    /// Shrinks by that much, or by all that it has.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.room.give_back(bytes);
        self.memory.give_back_window(bytes);
    }
}

/// What somebody may take who has `own`, and leaves as much of the rest as he has in all.
pub(super) fn half_beside(own: u64, left: u64) -> u64 {
    left.saturating_sub(own) / 2
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::{Client, memory::ConnectionShare};

    const MIB: u64 = 1 << 20;
    const FIRST: u32 = 256 * 1024;

    fn growing(memory: &Memory, room: &SessionRoom) -> (ConnectionShare, Growth) {
        let share = memory.admit(Client::Machine).unwrap();
        let growth = share.growth(room);
        (share, growth)
    }

    #[test]
    fn a_session_leaves_something_for_the_next_and_gets_everything_back() {
        let memory = Memory::new(8 << 30, FIRST);
        let room = SessionRoom::new(64 * MIB);
        let mut all: Vec<_> = (0..4).map(|_| growing(&memory, &room)).collect();
        let grown = all.iter_mut().map(|(_, growth)| {
            growth.grow(100 * MIB);
            growth.bytes() / MIB
        });
        assert_eq!(grown.collect::<Vec<_>>(), [32, 16, 8, 4]);
        all[0].1.grow(100 * MIB);
        assert_eq!(all[0].1.bytes(), 32 * MIB, "it has its half");
        all[0].1.shrink(20 * MIB);
        assert_eq!(all[0].1.bytes(), 12 * MIB);
        drop(all);
        let (_share, mut growth) = growing(&memory, &room);
        growth.grow(32 * MIB);
        assert_eq!(growth.bytes(), 32 * MIB);
    }

    #[test]
    fn a_session_leaves_half_of_the_process_to_others() {
        let memory = Memory::new(512 * MIB, FIRST);
        let room = SessionRoom::new(64 * MIB);
        let mut all: Vec<_> = (0..50).map(|_| growing(&memory, &room)).collect();
        for (_, growth) in &mut all {
            growth.grow(16 * MIB);
        }
        let grown: u64 = all.iter().map(|(_, growth)| growth.bytes()).sum();
        assert!((17 * MIB..19 * MIB).contains(&grown), "{grown}");
    }

    #[test]
    fn sessions_together_leave_windows_to_those_who_come() {
        let memory = Memory::new(512 * MIB, FIRST);
        let mut all = Vec::new();
        for _ in 0..50 {
            let (share, mut growth) = growing(&memory, &SessionRoom::new(64 * MIB));
            growth.grow(16 * MIB);
            all.push((share, growth));
        }
        let grown: u64 = all.iter().map(|(_, growth)| growth.bytes()).sum();
        assert!((30 * MIB..40 * MIB).contains(&grown), "{grown}");
        assert_eq!(memory.window(), FIRST, "nobody's window is smaller");
    }

    #[test]
    fn nothing_grows_while_windows_are_small() {
        let memory = Memory::new(64 * MIB, FIRST);
        let shares: Vec<_> = (0..100)
            .map(|_| memory.admit(Client::Machine).unwrap())
            .collect();
        assert!(memory.window() < FIRST);
        let mut growth = shares[0].growth(&SessionRoom::new(64 * MIB));
        growth.grow(MIB);
        assert_eq!(growth.bytes(), 0);
    }
}
