//! How long to wait before the next attempt to reach a server, or the API server of a cluster.

use std::time::Duration;

use rand::RngExt as _;

/// The first wait, after the first attempt has failed.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait, unless another is given.
pub(crate) const CAP: Duration = Duration::from_secs(10);
/// What lasted this long was a success: what follows is a new trouble, not the old one.
const STABLE: Duration = Duration::from_secs(10);

/// Doubling waits with jitter, so that ten thousand agents do not return as one.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(CAP)
    }
}

impl Backoff {
    /// Waits that double up to `cap`.
    pub(crate) fn up_to(cap: Duration) -> Self {
        Self { failures: 0, cap }
    }

    /// The wait before the next attempt, now that a session (or a watch) has ended after `lasted`,
    /// zero if it never came to be. The first attempt after a stable one is made soon: not at once,
    /// for what ended it may have ended those of all others.
    pub(crate) fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= STABLE {
            self.failures = 0;
            return FIRST.mul_f64(rand::rng().random_range(0.0..=1.0));
        }
        let longest = FIRST
            .saturating_mul(1 << self.failures.min(8))
            .min(self.cap);
        self.failures += 1;
        jittered(longest)
    }

    /// The next trouble is a new one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Somewhere between half of it and all of it.
pub(crate) fn jittered(longest: Duration) -> Duration {
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_with_jitter() {
        let mut backoff = Backoff::default();
        for longest in [500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
            let wait = backoff.after(Duration::ZERO);
            let longest = Duration::from_millis(longest);
            assert!(
                wait <= longest && wait >= longest / 2,
                "{wait:?} for {longest:?}"
            );
        }
    }

    #[test]
    fn a_stable_session_is_followed_soon_and_starts_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after(Duration::ZERO);
        }
        assert!(backoff.after(STABLE) <= FIRST);
        assert!(backoff.after(Duration::ZERO) <= FIRST);
    }

    #[test]
    fn those_who_lost_the_same_server_do_not_come_as_one() {
        let mut waits: Vec<_> = (0..1000)
            .map(|_| Backoff::default().after(STABLE))
            .collect();
        waits.sort();
        let busiest = waits
            .windows(100)
            .map(|these| these[99].saturating_sub(these[0]))
            .min();
        assert!(
            busiest > Some(FIRST / 20),
            "a tenth of them within {busiest:?}"
        );
    }

    #[test]
    fn a_server_that_hangs_up_at_once_is_not_hammered() {
        let mut backoff = Backoff::default();
        backoff.after(Duration::from_secs(1));
        assert!(backoff.after(Duration::from_secs(1)) >= FIRST / 2);
    }
}
