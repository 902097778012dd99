//! How the memory of a process is shared out among what it carries: arithmetic alone.
//!
//! ```text
//!   limit      3/8  everything else: sessions, tables, certificates, the program itself
//!              5/8  connections, of which
//!                   1/16    reads that wait to be sent, drawn as needed
//!                   5/16    what windows are larger than the smallest, and what has arrived in them
//!                   10/16   16 KiB for each connection that may be open:
//!                             8 KiB  the smallest window, and what has arrived in it
//!                             4 KiB  one read that waits to be sent
//!                             4 KiB  tasks, streams, entries
//! ```
//! All open connections have the same window: the largest for which there is room even if each of them
//! fills it beside what is held already.

/// The window that every connection has, however many there are.
pub(crate) const SMALLEST_WINDOW: u32 = 8 * 1024;
/// What a connection may hold unsent, however much others do.
pub(crate) const SMALLEST_READ: usize = 4 * 1024;
/// A connection's task, its stream on both levels, its places.
const BOOKKEEPING: u64 = 4 * 1024;
/// One connection at the least.
const EACH: u64 = SMALLEST_WINDOW as u64 + SMALLEST_READ as u64 + BOOKKEEPING;

/// How much memory a process may use, shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    limit: u64,
}

impl Shares {
    pub(crate) fn of(limit: u64) -> Self {
        Self { limit }
    }

    /// What connections may hold altogether.
    pub(crate) fn for_connections(self) -> u64 {
        self.limit / 8 * 5
    }

    /// Reads that wait to be sent, beyond the first of each connection.
    pub(crate) fn unsent(self) -> u64 {
        self.for_connections() / 16
    }

    /// What may be held of received bytes beyond each connection's smallest window.
    pub(crate) fn received(self) -> u64 {
        self.for_connections() / 16 * 5
    }

    /// What may be held of that in windows which are no longer drawn: what is left beside all that may be.
    pub(crate) fn uncovered(self) -> u64 {
        self.received() / 4
    }

    /// How many connections may be open.
    pub(crate) fn connections(self) -> u32 {
        let connections = self.for_connections() / 16 * 10 / EACH;
        connections.try_into().unwrap_or(u32::MAX)
    }

    /// The window of each while so many are open and so much is held beyond smallest windows. A
    /// quarter is left for what arrives until every peer has heard of a smaller window.
    pub(crate) fn window(self, open: u32, held: u64, largest: u32) -> u32 {
        let room = (self.received() / 4 * 3).saturating_sub(held);
        let beyond = |window: u32| u64::from(open) * u64::from(window - SMALLEST_WINDOW);
        let mut window = largest.max(SMALLEST_WINDOW);
        while beyond(window) > room {
            window = (window.next_power_of_two() / 2).max(SMALLEST_WINDOW);
        }
        window
    }

    /// What windows may grow beyond `first`, while so many are open and so much is held, where they have grown by
    /// `grown` already: half of what there is for all of them, and nothing that would make the first windows of those
    /// smaller that are open, or may come soon.
    pub(crate) fn growth(self, open: u32, held: u64, grown: u64, first: u32) -> u64 {
        let open = open.saturating_add(open / 4);
        let windows = u64::from(open) * u64::from(first.saturating_sub(SMALLEST_WINDOW));
        let room = self.received() / 4 * 3;
        let left = room.saturating_sub(windows + 2 * held + grown);
        left.min((room / 2).saturating_sub(grown))
    }

    /// The window after `now`, where windows have grown by `grown` together. A smaller one is due at once; a larger one
    /// only when there is room to spare, or everything that comes and goes would change it.
    pub(crate) fn next_window(
        self,
        now: u32,
        open: u32,
        held: u64,
        grown: u64,
        largest: u32,
    ) -> u32 {
        let fits = self.window(open, held + grown, largest);
        if fits <= now {
            return fits;
        }
        let (open, held) = (open.saturating_add(open / 4), held.saturating_mul(2));
        self.window(open, held.saturating_add(grown), largest)
            .max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LARGEST: u32 = 256 * 1024;

    /// The memory limit in a manifest.
    fn limit_of(manifest: &str) -> u64 {
        let limits = manifest.split_once("limits: { memory: ").unwrap().1;
        let text = limits.split_once(' ').unwrap().0;
        let (number, unit) = text.split_at(text.len() - 2);
        let unit = match unit {
            "Mi" => MIB,
            "Gi" => 1024 * MIB,
            other => panic!("{other}"),
        };
        number.parse::<u64>().unwrap() * unit
    }

    /// The most that connections hold while so many are open: each has filled its window.
    fn held(shares: Shares, open: u32) -> u64 {
        let window = u64::from(shares.window(open, 0, LARGEST));
        let each = window + SMALLEST_READ as u64 + BOOKKEEPING;
        u64::from(open) * each + shares.unsent()
    }

    #[test]
    fn no_number_of_connections_holds_more_than_the_manifests_allow() {
        for (manifest, least) in [
            (
                include_str!("../../../../deploy/kubernetes/base/server.yaml"),
                50_000,
            ),
            (
                include_str!("../../../../deploy/kubernetes/base/agent.yaml"),
                8192,
            ),
        ] {
            let limit = limit_of(manifest);
            let shares = Shares::of(limit);
            let most = shares.connections();
            assert!(most >= least, "{most}");
            let worst = (0..=most).map(|open| held(shares, open)).max().unwrap();
            assert!(worst <= limit / 8 * 5, "{worst} of {limit}");
            let parts = u64::from(most) * EACH + shares.received() + shares.unsent();
            assert!(parts <= limit / 8 * 5, "{parts} of {limit}");
        }
    }

    #[test]
    fn readers_that_stop_one_after_the_other_never_hold_more_than_there_is() {
        let shares = Shares::of(512 * MIB);
        let mut held = 0;
        for open in 1..=shares.connections() {
            held += u64::from(shares.window(open, held, LARGEST) - SMALLEST_WINDOW);
            assert!(held <= shares.received(), "{held} for {open}");
        }
    }

    #[test]
    fn windows_are_whole_until_they_no_longer_fit() {
        let shares = Shares::of(2048 * MIB);
        assert_eq!(shares.connections(), 51_200);
        for (open, window) in [
            (0, 256),
            (1238, 256),
            (1239, 128),
            (5485, 64),
            (12_800, 32),
            (38_400, 16),
            (51_200, 8),
        ] {
            assert_eq!(
                shares.window(open, 0, LARGEST),
                window * 1024,
                "{open} open"
            );
        }
        assert_eq!(shares.window(1, 300 * MIB, LARGEST), SMALLEST_WINDOW);
        assert_eq!(shares.window(1238, 0, 300_000), 262_144);
        assert_eq!(shares.window(10, 0, 300_000), 300_000);
    }

    #[test]
    fn a_window_does_not_change_with_every_connection_that_comes_and_goes() {
        let shares = Shares::of(2048 * MIB);
        let next = |now: u32, open| shares.next_window(now * 1024, open, 0, 0, LARGEST) / 1024;
        assert_eq!(next(256, 1239), 128);
        assert_eq!(next(128, 1238), 128);
        assert_eq!(next(128, 900), 256);
        assert_eq!(next(8, 1), 256);
    }
}
