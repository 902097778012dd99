//! A path that lets small segments pass and loses large ones: a router with a smaller MTU drops them, and its word of
//! it is lost as well ([RFC 2923], section 2.1).
//!
//! ```text
//!  sent  1 . 2 .  . 3 . . .  . . . . 4 . . .  . . . .  . . . . 5    the same segment, each time after twice the wait
//!  heard                      ^ the peer, which is there and does not have it
//! ```
//! The link may have come back just before the peer was heard: so another repetition after that has to be in vain. On a
//! slow link the first wait is seconds long, and a queue drains before the fifth.
//!
//! [RFC 2923]: https://www.rfc-editor.org/rfc/rfc2923#section-2.1

use crate::{outgoing::SMALL_SEGMENT, sys::socket::TcpCounts};

/// So often a segment has been sent again when it is called lost for its size: 31 times the first wait, which is a
/// round trip and a fifth of a second.
const REPEATS: u8 = 5;
/// From here on a peer that is heard is there, and not what was on its way when a link died.
const LATE: u8 = 3;

/// What speaks for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Swallowed {
    /// How often the segment had been sent again when the peer was heard.
    heard: Option<u8>,
    is_certain: bool,
}

impl Swallowed {
    pub(super) fn look(&mut self, before: &TcpCounts, now: &TcpCounts) {
        let gets_something =
            now.acknowledged != before.acknowledged || now.delivered != before.delivered;
        if gets_something || !now.is_large() || now.repeats < before.repeats {
            *self = Self::default();
            return;
        }
        let in_vain = self.heard.is_some_and(|heard| now.repeats > heard);
        self.is_certain = in_vain && now.repeats >= REPEATS;
        if now.repeats >= LATE && now.segments != before.segments {
            self.heard.get_or_insert(now.repeats);
        }
    }

    pub(super) fn is_certain(&self) -> bool {
        self.is_certain
    }
}

impl TcpCounts {
    /// Whether a segment waits for its acknowledgement that may be larger than a small one.
    pub(super) fn is_large(&self) -> bool {
        self.largest > SMALL_SEGMENT && self.pending > SMALL_SEGMENT.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: TcpCounts = TcpCounts {
        segments: 7,
        out_of_order: 0,
        received: 0,
        acknowledged: 100,
        delivered: 3,
        pending: 90_000,
        repeats: 0,
        largest: 1448,
        since_last: std::time::Duration::ZERO,
    };

    /// Each look as repetitions, and segments that have come; what the last one finds.
    fn after(looks: &[(u8, u32)], counts: TcpCounts) -> bool {
        let mut swallowed = Swallowed::default();
        let mut before = TcpCounts::default();
        for (repeats, segments) in looks {
            let now = TcpCounts {
                repeats: *repeats,
                segments: *segments,
                ..counts
            };
            swallowed.look(&before, &now);
            before = now;
        }
        swallowed.is_certain()
    }

    #[test]
    fn what_is_repeated_in_vain_to_a_peer_that_is_there_is_lost_for_its_size() {
        assert!(after(&[(0, 7), (2, 7), (4, 8), (5, 8)], WAITS));
        assert!(after(&[(0, 7), (5, 8), (6, 8)], WAITS));
    }

    #[test]
    fn a_dead_link_loses_whatever_there_is() {
        assert!(!after(&[(0, 7), (1, 8), (4, 8), (5, 8), (6, 8)], WAITS));
    }

    #[test]
    fn a_link_that_comes_back_is_given_another_chance() {
        assert!(!after(&[(0, 7), (4, 7), (5, 9), (5, 12)], WAITS));
    }

    #[test]
    fn what_is_small_is_not_lost_for_its_size() {
        let looks = [(0, 7), (4, 8), (5, 8), (6, 9)];
        let ping = TcpCounts {
            pending: 50,
            ..WAITS
        };
        let small_session = TcpCounts {
            largest: SMALL_SEGMENT - 12,
            ..WAITS
        };
        assert!(!after(&looks, ping) && !after(&looks, small_session));
        assert!(after(&looks, WAITS));
    }

    #[test]
    fn a_peer_that_gets_segments_after_the_missing_one_gets_large_ones() {
        let mut swallowed = Swallowed::default();
        let mut before = WAITS;
        for repeats in 1..8 {
            let now = TcpCounts {
                repeats,
                segments: before.segments + 1,
                delivered: before.delivered + u32::from(repeats % 2 == 0),
                ..before
            };
            swallowed.look(&before, &now);
            assert!(!swallowed.is_certain(), "{repeats}");
            before = now;
        }
    }
}
