//! Paths to servers on which packets of full size are lost while small ones pass, and nobody says so: a router with a
//! smaller MTU drops them, and something drops its word of it too (a path-MTU black hole).
//!
//! A session does not come about over such a path, its handshake has large segments; over one that becomes so, it
//! answers keepalives, and stands still with the first transfer. TCP cannot make the segments of an open connection
//! smaller by itself (unless `net.ipv4.tcp_mtu_probing` is set), so what follows is about the next one:
//!
//! ```text
//!          suspected                 suspected again
//!  full ---------------> small ------------------------> full
//!                          |                              ^
//!                          +------- after some time ------+
//! ```
//! Small segments cost a few per cent of the throughput at most, so one suspicion is enough. A session that stood still
//! both ways looks as over a dead link: then it is the next handshake that tells.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{model::ServerAddr, outgoing::SegmentSize};

/// What speaks for the loss of large segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Suspicion {
    /// The server said nothing, though its machine was there, or a first attempt was repeated in vain: it may hang or
    /// be busy as well.
    Possible,
    /// The kernel sent a large segment of a session again and again in vain, to a server that was there.
    Certain,
}

impl Suspicion {
    /// How long segments stay small.
    fn lasts(self) -> Duration {
        match self {
            Self::Certain => Duration::from_hours(24),
            Self::Possible => Duration::from_hours(1),
        }
    }
}

/// What is known of the paths to servers.
#[derive(Debug, Default)]
pub(super) struct Paths {
    suspected: HashMap<ServerAddr, (Suspicion, Instant)>,
}

impl Paths {
    /// How large the segments of the next session may be.
    pub(super) fn segments(&mut self, server: &ServerAddr, now: Instant) -> SegmentSize {
        self.suspected.retain(|_, (suspicion, since)| {
            now.saturating_duration_since(*since) < suspicion.lasts()
        });
        if self.suspected.contains_key(server) {
            SegmentSize::Small
        } else {
            SegmentSize::Full
        }
    }

    /// A session that had such segments is over, or an attempt at one, and the loss of large ones may be the reason.
    pub(super) fn suspect(
        &mut self,
        server: &ServerAddr,
        segments: SegmentSize,
        suspicion: Suspicion,
        now: Instant,
    ) {
        match segments {
            SegmentSize::Full => {
                self.suspected.insert(server.clone(), (suspicion, now));
            }
            // It was not the size; but several servers may stand behind the name.
            SegmentSize::Small => {
                let known = self.suspicion(server);
                if known <= Some(suspicion) {
                    self.suspected.remove(server);
                }
            }
        }
    }

    /// Why the segments to this server are small.
    pub(super) fn suspicion(&self, server: &ServerAddr) -> Option<Suspicion> {
        self.suspected.get(server).map(|(suspicion, _)| *suspicion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> ServerAddr {
        "control.example:10262".parse().unwrap()
    }

    #[test]
    fn segments_are_small_for_a_day_after_large_ones_were_lost() {
        let (mut paths, start, server) = (Paths::default(), Instant::now(), server());
        assert_eq!(paths.segments(&server, start), SegmentSize::Full);
        paths.suspect(&server, SegmentSize::Full, Suspicion::Certain, start);
        let last = start + Duration::from_hours(23);
        assert_eq!(paths.segments(&server, last), SegmentSize::Small);
        assert_eq!(paths.suspicion(&server), Some(Suspicion::Certain));
        let after = start + Duration::from_hours(24);
        assert_eq!(paths.segments(&server, after), SegmentSize::Full);
    }

    #[test]
    fn small_segments_that_do_not_help_are_given_up() {
        let (mut paths, start, server) = (Paths::default(), Instant::now(), server());
        paths.suspect(&server, SegmentSize::Full, Suspicion::Possible, start);
        assert_eq!(paths.segments(&server, start), SegmentSize::Small);
        paths.suspect(&server, SegmentSize::Small, Suspicion::Possible, start);
        assert_eq!(paths.segments(&server, start), SegmentSize::Full);
    }

    #[test]
    fn what_is_certain_is_not_given_up_for_what_is_possible() {
        let (mut paths, start, server) = (Paths::default(), Instant::now(), server());
        for (suspicion, after) in [
            (Suspicion::Possible, SegmentSize::Small),
            (Suspicion::Certain, SegmentSize::Full),
        ] {
            paths.suspect(&server, SegmentSize::Full, Suspicion::Certain, start);
            paths.suspect(&server, SegmentSize::Small, suspicion, start);
            assert_eq!(paths.segments(&server, start), after);
        }
    }
}
