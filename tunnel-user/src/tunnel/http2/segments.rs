//! Signs of life that never reach the program: what the kernel sees of a session's connection.
//!
//! ```text
//!  between two looks                                a sign of life?
//!  the peer acknowledged some of what still waits   yes: the link is slow, and full of ours
//!  it acknowledged all                              no: its kernel may do that for a program that hangs
//!  segments with data came, but nothing to read     yes: one is missing, and comes again
//!  a segment without data came, or none             no; but a path on which some do is no black hole
//! ```
//! A sender may wait for many seconds before it sends again what a full queue has dropped; that its kernel answers ours (TCP's
//! own keepalive sees to that) tells it from one that is gone.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::time::Instant;

use crate::{
    sys::socket::{TcpCounts, tcp_counts},
    tunnel::Settings,
};

/// The connection below a session.
#[derive(Debug)]
pub(crate) struct Segments {
    /// A second descriptor of the socket, whose first is within TLS and HTTP/2. `None`: no descriptor was left; then only what
    /// is read counts.
    socket: Option<OwnedFd>,
    seen: Seen,
}

/// What has been seen of it: a plain state machine.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: u64,
    data_segments: u32,
    alive: Option<Instant>,
}

impl Segments {
    pub(crate) fn of(socket: impl AsFd, settings: &Settings) -> Self {
        let asked_by_kernel = TcpKeepalive::new()
            .with_time(settings.keepalive_interval + Duration::from_secs(1))
            .with_interval(Duration::from_secs(1).max(settings.keepalive_timeout / 2));
        if let Err(error) = SockRef::from(&socket).set_tcp_keepalive(&asked_by_kernel) {
            tracing::debug!(%error, "no keepalive of TCP's own");
        }
        Self {
            socket: socket.as_fd().try_clone_to_owned().ok(),
            seen: Seen::default(),
        }
    }

    /// How long there has been no sign of life, and no segment at all; `None` where nothing was seen. Signs are seen when this is called.
    pub(super) fn silence(&mut self) -> (Option<Duration>, Option<Duration>) {
        let now = Instant::now();
        let socket = self.socket.as_ref();
        let counts = socket.and_then(|socket| tcp_counts(socket).ok());
        if let Some(counts) = counts {
            self.seen.look(counts, now);
        }
        let life = self.seen.alive;
        (
            life.map(|life| now.saturating_duration_since(life)),
            counts.map(|counts| counts.since_last),
        )
    }
}

impl Seen {
    fn look(&mut self, counts: TcpCounts, now: Instant) {
        let takes = counts.is_pending && counts.acknowledged > self.acknowledged;
        let sends = counts.data_segments != self.data_segments;
        if takes || sends {
            self.alive = now.checked_sub(counts.since_last);
        }
        self.acknowledged = counts.acknowledged;
        self.data_segments = counts.data_segments;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const QUIET: TcpCounts = TcpCounts {
        data_segments: 0,
        acknowledged: 0,
        is_pending: false,
        since_last: Duration::from_millis(100),
    };

    #[test]
    fn a_peer_takes_what_waits_only_while_something_does_and_shrinks() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let mut look = |acknowledged, is_pending, second: u32| {
            let counts = TcpCounts {
                acknowledged,
                is_pending,
                ..QUIET
            };
            seen.look(counts, start + second * SECOND);
            seen.alive
        };
        let first = look(100, true, 1);
        assert_eq!(first, Some(start + SECOND - QUIET.since_last));
        assert_eq!(look(100, true, 2), first, "nothing was taken");
        assert_eq!(look(300, false, 3), first, "nothing waits any more");
        assert_eq!(look(340, false, 4), first, "a delivered ping");
        assert!(look(400, true, 5) > first);
    }

    #[test]
    fn segments_with_data_are_life_also_when_one_before_them_is_missing() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let mut look = |data_segments, second: u32| {
            let counts = TcpCounts {
                data_segments,
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
}
