//! Signs of life that never reach the program: what the kernel sees of a session's connection.
//!
//! ```text
//!  between two looks                                a sign of life?
//!  the peer acknowledged some of what still waits   yes: the link is slow, and full of ours
//!  it acknowledged all                              no: its kernel may do that for a program that hangs
//!  data came, but nothing that can be read yet      yes: a part is missing, and comes again
//!  a segment without data came, or none             no; but a path on which some do is no black hole
//! ```
//! A sender may wait for many seconds before it sends again what a full queue has dropped; that its kernel answers ours
//! (TCP's own keepalive sees to that) tells it from one that is gone. [`Swallowed`] tells both from a path that loses
//! what is large.

mod swallowed;

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::time::Instant;

use self::swallowed::Swallowed;
use crate::{
    sys::socket::{TcpCounts, tcp_counts},
    tunnel::Settings,
};

/// A server waits 3 s for the first words: on a link with a long round trip there is no time for more.
const SOME_REPEATS: u8 = 2;

/// The connection below a session.
#[derive(Clone)]
pub(crate) struct Segments {
    /// Shared with TLS and HTTP/2, which are above it.
    socket: Arc<dyn AsFd + Send + Sync>,
    seen: Seen,
}

/// What has been seen of it: a plain state machine.
#[derive(Clone, Debug, Default)]
struct Seen {
    counts: TcpCounts,
    looked: Option<Instant>,
    alive: Option<Instant>,
    heard: Option<Instant>,
    swallowed: Swallowed,
}

/// What the kernel knows of a peer.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// How long there has been no sign of life; `None` where there never was one.
    pub(super) of_life: Option<Duration>,
    /// How long no segment at all has come, or a little less; `None` where nothing can be seen.
    pub(super) of_path: Option<Duration>,
    /// Large segments are lost, and small ones pass.
    pub(super) loses_large: bool,
}

impl Segments {
    pub(crate) fn of(socket: Arc<dyn AsFd + Send + Sync>, settings: &Settings) -> Self {
        let asked_by_kernel = TcpKeepalive::new()
            .with_time(settings.keepalive_interval + Duration::from_secs(1))
            .with_interval(Duration::from_secs(1).max(settings.keepalive_timeout / 2));
        if let Err(error) = SockRef::from(&socket).set_tcp_keepalive(&asked_by_kernel) {
            tracing::debug!(%error, "no keepalive of TCP's own");
        }
        Self {
            socket,
            seen: Seen::default(),
        }
    }

    /// Signs are seen when this is called.
    pub(super) fn look(&mut self) -> Signs {
        match self.counts() {
            Some(counts) => self.seen.look(counts, Instant::now()),
            None => Signs::default(),
        }
    }

    /// Whether nothing has come yet that can be read.
    pub(crate) fn has_heard_nothing(&self) -> bool {
        self.counts().is_some_and(|counts| counts.received == 0)
    }

    /// Whether a server that has closed the connection did not get what is large, though it was sent again.
    pub(crate) fn was_sent_in_vain(&self) -> bool {
        self.counts()
            .is_some_and(|counts| counts.is_large() && counts.repeats >= SOME_REPEATS)
    }

    /// What waits to be sent is of no use any more: the closing of the connection is a reset, which is small, and
    /// passes.
    pub(super) fn give_up(&self) {
        if let Err(error) = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "the session was closed without a reset");
        }
    }

    fn counts(&self) -> Option<TcpCounts> {
        tcp_counts(&self.socket).ok()
    }
}

impl Seen {
    fn look(&mut self, counts: TcpCounts, now: Instant) -> Signs {
        let acknowledged = now.checked_sub(counts.since_last);
        let takes = counts.acknowledged > self.counts.acknowledged;
        let sends = counts.received != self.counts.received
            || counts.out_of_order != self.counts.out_of_order;
        if (counts.pending > 0 && takes) || sends {
            self.alive = acknowledged.max(self.looked.filter(|_| sends));
        }
        let comes = counts.segments != self.counts.segments;
        // It came after the last look: when, the kernel tells only of acknowledgements that it takes.
        let heard = self.looked.filter(|_| comes);
        self.heard = self.heard.max(heard).max(acknowledged);
        self.swallowed.look(&self.counts, &counts);
        self.counts = counts;
        self.looked = Some(now);
        let since = |moment: Instant| now.saturating_duration_since(moment);
        Signs {
            of_life: self.alive.map(since),
            of_path: self.heard.map(since),
            loses_large: self.swallowed.is_certain(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const QUIET: TcpCounts = TcpCounts {
        segments: 0,
        out_of_order: 0,
        received: 0,
        acknowledged: 0,
        delivered: 0,
        pending: 0,
        repeats: 0,
        largest: 1448,
        since_last: Duration::from_millis(100),
    };

    #[test]
    fn a_peer_takes_what_waits_only_while_something_does_and_shrinks() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let mut look = |acknowledged, pending, second: u32| {
            let counts = TcpCounts {
                acknowledged,
                pending,
                ..QUIET
            };
            seen.look(counts, start + second * SECOND);
            seen.alive
        };
        let first = look(100, 900, 1);
        assert_eq!(first, Some(start + SECOND - QUIET.since_last));
        assert_eq!(look(100, 900, 2), first, "nothing was taken");
        assert_eq!(look(300, 0, 3), first, "nothing waits any more");
        assert_eq!(look(340, 0, 4), first, "a delivered ping");
        assert!(look(400, 900, 5) > first);
    }

    #[test]
    fn data_is_life_also_when_some_before_it_is_missing() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let mut look = |out_of_order, second: u32| {
            let counts = TcpCounts {
                out_of_order,
                ..QUIET
            };
            seen.look(counts, start + second * SECOND);
            seen.alive
        };
        assert_eq!(look(0, 1), None);
        let first = look(3, 2);
        assert!(first.is_some());
        assert_eq!(look(3, 3), first);
        assert!(look(4, 4) > first);
    }

    #[test]
    fn a_segment_that_the_kernel_only_answers_is_no_life_and_tells_of_the_path() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let mut look = |segments, second: u32| {
            let counts = TcpCounts {
                segments,
                since_last: second * SECOND,
                ..QUIET
            };
            let signs = seen.look(counts, start + second * SECOND);
            assert_eq!(signs.of_life, None);
            signs.of_path.unwrap()
        };
        assert_eq!(look(0, 1), SECOND);
        assert_eq!(look(0, 5), 5 * SECOND);
        assert_eq!(look(1, 6), SECOND, "after the look before");
        assert_eq!(look(1, 8), 3 * SECOND);
    }
}
