//! How long a question and its answer take on a session: what the window of a connection has to cover.
//!
//! ```text
//!  connections --wanted--> the watch over the session --ping--> peer
//!              <--shortest of the last minutes-- answer <------
//! ```
//! HTTP/2 is asked, and not TCP, for something on the way may end the connections of both (a proxy, a load balancer).
//! The shortest counts: data that goes before an answer makes it late. Nobody asks on a session whose connections carry
//! little, and a server has thousands of those.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Then it is measured again, if somebody wants to know.
const FRESH: Duration = Duration::from_secs(30);
/// The shortest of this period and of the one before counts: a route may change.
const PERIOD: Duration = Duration::from_mins(2);
/// No link is longer. A peer that answers late on purpose gets no larger windows for it.
const LONGEST: Duration = Duration::from_secs(1);

/// The round trip of one session. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoundTrip(Arc<Measurements>);

#[derive(Debug, Default)]
struct Measurements {
    /// Microseconds; zero while it is not known. Connections look at it for each frame.
    shortest: AtomicU64,
    measured: Mutex<Measured>,
    /// `connections --ask the peer--> watch`
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Measured {
    last: Option<Instant>,
    period: Option<Period>,
    before: Option<Duration>,
    is_wanted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Period {
    began: Instant,
    shortest: Duration,
}

impl RoundTrip {
    /// The round trip, as far as it is known.
    pub(crate) fn get(&self) -> Option<Duration> {
        let micros = self.0.shortest.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Has it measured, unless that was done a moment ago.
    pub(crate) fn want(&self) {
        if self.measured(|measured| measured.is_due(Instant::now())) {
            self.0.wanted.notify_one();
        }
    }

    /// Returns once somebody wants it measured.
    pub(super) async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    /// The peer has answered after so long.
    pub(super) fn note(&self, took: Duration) {
        let shortest = self.measured(|measured| {
            measured.note(took.min(LONGEST), Instant::now());
            measured.shortest()
        });
        let micros = shortest.map_or(0, |shortest| shortest.as_micros().max(1));
        let micros = micros.try_into().unwrap_or(u64::MAX);
        self.0.shortest.store(micros, Ordering::Relaxed);
    }

    fn measured<T>(&self, with: impl FnOnce(&mut Measured) -> T) -> T {
        // It is whole between any two operations, whatever panicked meanwhile.
        let measured = self.0.measured.lock();
        with(&mut measured.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Measured {
    /// Whether to measure now; said once until that is done.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_fresh = |last| now.saturating_duration_since(last) < FRESH;
        let is_due = !self.is_wanted && !self.last.is_some_and(is_fresh);
        self.is_wanted |= is_due;
        is_due
    }

    fn note(&mut self, took: Duration, now: Instant) {
        self.is_wanted = false;
        self.last = Some(now);
        match &mut self.period {
            Some(period) if now.saturating_duration_since(period.began) < PERIOD => {
                period.shortest = period.shortest.min(took);
            }
            period => {
                let next = Period {
                    began: now,
                    shortest: took,
                };
                let ended = period.replace(next);
                let recent =
                    |ended: &Period| now.saturating_duration_since(ended.began) < 2 * PERIOD;
                self.before = ended.filter(recent).map(|ended| ended.shortest);
            }
        }
    }

    fn shortest(&self) -> Option<Duration> {
        let present = self.period.map(|period| period.shortest);
        present.into_iter().chain(self.before).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn the_shortest_counts_until_two_periods_have_gone_by_without_it() {
        let (mut measured, start) = (Measured::default(), Instant::now());
        assert_eq!(measured.shortest(), None);
        let mut after = |time, took: u32| {
            measured.note(took * MILLISECOND, start + time);
            measured.shortest().unwrap()
        };
        assert_eq!(after(Duration::ZERO, 20), 20 * MILLISECOND);
        assert_eq!(after(PERIOD / 2, 90), 20 * MILLISECOND);
        assert_eq!(after(PERIOD, 80), 20 * MILLISECOND);
        assert_eq!(after(2 * PERIOD, 90), 80 * MILLISECOND);
        assert_eq!(after(2 * PERIOD + MILLISECOND, 30), 30 * MILLISECOND);
        assert_eq!(
            after(30 * PERIOD, 70),
            70 * MILLISECOND,
            "that was long ago"
        );
    }

    #[test]
    fn it_is_measured_once_when_it_is_wanted_and_old() {
        let (mut measured, start) = (Measured::default(), Instant::now());
        assert!(measured.is_due(start));
        assert!(!measured.is_due(start), "it is on its way");
        measured.note(MILLISECOND, start);
        assert!(!measured.is_due(start + FRESH / 2));
        assert!(measured.is_due(start + FRESH));
    }
}
