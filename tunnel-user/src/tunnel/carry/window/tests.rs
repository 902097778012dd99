use super::*;
use crate::tunnel::{
    Client, Memory,
    memory::{ConnectionShare, SessionRoom},
};

const ROUND_TRIP: Duration = Duration::from_millis(50);
const FIRST: u64 = 256 * 1024;
const MOST: u32 = 16 << 20;

/// A connection whose reader takes bytes, its peer, and the clock.
struct Link {
    window: Window,
    now: Instant,
    /// What the socket has taken and its peer has not acknowledged.
    waiting: u64,
    /// What HTTP/2 would have the window be, beyond the first one.
    target: u64,
    memory: Memory,
    _share: ConnectionShare,
}

fn link() -> Link {
    let memory = Memory::new(4 << 30, 256 * 1024);
    let share = memory.admit(Client::Machine).unwrap();
    let growth = share.growth(&SessionRoom::new(64 << 20));
    Link {
        window: Window::new(growth, MOST),
        now: Instant::now(),
        waiting: 0,
        target: 0,
        memory,
        _share: share,
    }
}

impl Link {
    /// So many bytes are taken within a round trip, in several pieces; returns the window then.
    fn take(&mut self, bytes: u64) -> u64 {
        for _ in 0..8 {
            self.now += ROUND_TRIP / 8;
            self.take_at_once(bytes / 8, Some(FIRST));
        }
        FIRST + self.target
    }

    fn take_at_once(&mut self, bytes: u64, first: Option<u64>) {
        let bytes = usize::try_from(bytes).unwrap();
        let change = self
            .window
            .took(bytes, || self.waiting, self.now, Some(ROUND_TRIP), first);
        self.follow(change);
    }

    fn rest(&mut self) {
        let change = self.window.rest();
        self.follow(change);
    }

    fn follow(&mut self, change: Change) {
        self.target = self.target.strict_add_signed(change.larger as i64);
        assert!(self.window.growth() >= self.target || self.window.growth() == 0);
    }

    fn drawn(&self) -> u64 {
        self.memory.read().grown
    }

    /// Until it is as large as it may be.
    fn grow(&mut self) {
        for _ in 0..20 {
            self.take(8 << 20);
        }
        assert_eq!(FIRST + self.target, u64::from(MOST));
    }
}

#[test]
fn a_reader_whom_only_the_window_holds_up_soon_gets_all_there_is() {
    let mut link = link();
    let mut sizes = vec![FIRST];
    while sizes.len() < 12 {
        let size = link.take(*sizes.last().unwrap());
        sizes.push(size);
    }
    assert!(sizes.is_sorted(), "{sizes:?}");
    assert!(sizes[6] > 16 * FIRST, "{sizes:?}");
    assert_eq!(sizes[11], u64::from(MOST));
}

#[test]
fn what_only_fills_the_kernels_buffers_makes_no_window_larger() {
    let mut link = link();
    // The reader's kernel takes some, and the rest waits in the socket.
    for _ in 0..12 {
        link.waiting += FIRST - 8 * 1024;
        link.take(FIRST);
    }
    assert_eq!((link.target, link.drawn()), (0, 0));
    // It reads after all.
    link.waiting = 0;
    link.take(FIRST);
    assert!(link.take(FIRST) > FIRST);
}

#[test]
fn the_window_is_a_few_times_what_a_slow_reader_takes_and_never_less_than_the_first() {
    let mut link = link();
    for _ in 0..20 {
        link.take(10_000);
    }
    assert_eq!((link.target, link.drawn()), (0, 0));
    for _ in 0..20 {
        link.take(1 << 20);
    }
    let size = FIRST + link.target;
    assert!((4 << 20..8 << 20).contains(&size), "{size}");
}

#[test]
fn a_reader_that_becomes_slow_pays_back_with_what_it_takes() {
    let mut link = link();
    link.grow();
    let drawn = link.drawn();
    let trips = u32::try_from(2 * PERIOD.as_millis() / ROUND_TRIP.as_millis()).unwrap();
    let slow = 40_000;
    for _ in 0..trips {
        link.take(slow);
    }
    assert_eq!(link.target, 0, "it needs no more than the first window");
    let paid = drawn - link.drawn();
    assert!(paid > 0 && paid <= slow * u64::from(trips), "{paid}");
    for _ in 0..2 * trips {
        link.take(slow);
    }
    assert_eq!(link.drawn(), 0);
}

#[test]
fn what_is_owed_is_lent_again_first() {
    let mut link = link();
    link.grow();
    let drawn = link.drawn();
    link.take_at_once(1, None);
    assert_eq!((link.target, link.drawn()), (0, drawn - 1));
    link.grow();
    assert_eq!(link.drawn(), drawn);
}

#[test]
fn bursts_with_pauses_between_them_keep_the_window() {
    let mut link = link();
    link.grow();
    for _ in 0..20 {
        link.now += PERIOD / 4;
        link.take(8 << 20);
        link.rest();
        link.take(8 << 20);
    }
    assert!(link.target > 15 << 20, "{}", link.target);
}

#[test]
fn one_that_rests_holds_nothing_back_from_others_and_draws_for_what_still_comes() {
    let mut link = link();
    link.grow();
    link.rest();
    assert!(link.drawn() > 0);
    link.take(1000);
    link.rest();
    assert_eq!((link.target, link.drawn()), (0, 0), "it trickles");
    link.window.has_come(3 << 20);
    assert_eq!(link.drawn(), 3 << 20);
    link.take_at_once(2 << 20, Some(FIRST));
    assert_eq!((link.target, link.drawn()), (0, 1 << 20));
    link.take_at_once(2 << 20, Some(FIRST));
    assert_eq!((link.target, link.drawn()), (0, 0));
}

#[test]
fn where_memory_is_scarce_nothing_more_is_told_at_once() {
    let mut link = link();
    link.grow();
    let drawn = link.drawn();
    link.take_at_once(1 << 20, None);
    assert_eq!((link.target, link.drawn()), (0, drawn - (1 << 20)));
}

#[test]
fn nothing_changes_before_the_round_trip_is_known_and_much_makes_it_wanted() {
    let mut link = link();
    let took = |link: &mut Link, bytes| link.window.took(bytes, || 0, link.now, None, Some(FIRST));
    assert_eq!(took(&mut link, 1000), Change::default());
    let wanted = Change {
        larger: 0,
        measure: true,
    };
    assert_eq!(took(&mut link, 1 << 20), wanted);
}

#[test]
fn a_link_whose_present_round_trip_is_twice_the_shortest_is_filled_nevertheless() {
    let mut link = link();
    // HTTP/2 tells again what was taken when it is a third of the window: two thirds may come in a round trip at least.
    for _ in 0..20 {
        let size = FIRST + link.target;
        for _ in 0..2 {
            link.take(size / 3);
        }
    }
    assert_eq!(FIRST + link.target, u64::from(MOST));
}

#[test]
fn after_the_last_byte_only_what_waits_stays_drawn() {
    let mut link = link();
    link.grow();
    link.window.end(3 << 20);
    assert_eq!(link.drawn(), 3 << 20);
    link.target = 0;
    link.take(2 << 20);
    assert_eq!((link.target, link.drawn()), (0, 1 << 20));
    link.take(2 << 20);
    assert_eq!((link.target, link.drawn()), (0, 0));
}
