//! When to renew a certificate.
//!
//! ```text
//!  issued ------------------ 70 % ~~~ due ~~~ 90 % ---- expires
//!                                      \-- failed: 1, 2, 4 ... times the first back-off
//! ```
//! The moment is drawn anew for each certificate, so that ten thousand agents enrolled in one
//! minute do not renew in one minute.

use std::time::Duration;

use time::OffsetDateTime;

use super::Validity;

/// Where in a certificate's life its renewal falls due.
const EARLIEST: f64 = 0.7;
const LATEST: f64 = 0.9;

/// The first wait after a failure, as part of the certificate's life; the longest wait is
/// [`MAX_BACK_OFF_PART`] of it. So a certificate of seconds is retried in time as well as one of
/// months.
const BACK_OFF_PART: u32 = 2000;
const MAX_BACK_OFF_PART: u32 = 50;
/// What no wait exceeds, whatever the life.
const MAX_BACK_OFF: Duration = Duration::from_mins(5);
/// What every wait is at least: a server that refuses must not be flooded.
const MIN_BACK_OFF: Duration = Duration::from_millis(200);

/// The longest sleep before the clock is read again: it may jump, and the machine may sleep.
pub const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// Decides when the next attempt to renew is due.
#[derive(Clone, Debug, PartialEq)]
pub struct RenewalSchedule {
    validity: Validity,
    due: OffsetDateTime,
    failures: u32,
}

impl RenewalSchedule {
    /// The schedule of a certificate. `jitter` in 0..1 is random.
    pub fn new(validity: Validity, jitter: f64) -> Self {
        let part = EARLIEST + (LATEST - EARLIEST) * jitter.clamp(0.0, 1.0);
        Self {
            validity,
            due: validity.issued + life(validity).mul_f64(part),
            failures: 0,
        }
    }

    /// How long to wait from now; zero when the renewal is due.
    pub fn wait(&self, now: OffsetDateTime) -> Duration {
        (self.due - now).try_into().unwrap_or(Duration::ZERO)
    }

    /// An attempt failed: the next one comes later, each time twice as late. `jitter` in 0..1.
    pub fn failed(&mut self, now: OffsetDateTime, jitter: f64) {
        let life = life(self.validity);
        let first = (life / BACK_OFF_PART).max(MIN_BACK_OFF);
        let longest = (life / MAX_BACK_OFF_PART).clamp(MIN_BACK_OFF, MAX_BACK_OFF);
        let wait = first
            .saturating_mul(1 << self.failures.min(16))
            .min(longest);
        self.failures = self.failures.saturating_add(1);
        self.due = now + wait.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    }

    /// The life of the certificate that this schedule is for.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

fn life(validity: Validity) -> Duration {
    (validity.expires - validity.issued)
        .try_into()
        .unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds)
    }

    fn ninety_days() -> Validity {
        Validity::starting(at(0), 90 * DAY)
    }

    #[test]
    fn falls_due_between_70_and_90_percent_of_the_life() {
        let earliest = RenewalSchedule::new(ninety_days(), 0.0).wait(at(0));
        let latest = RenewalSchedule::new(ninety_days(), 1.0).wait(at(0));
        assert_eq!(earliest, 63 * DAY);
        assert_eq!(latest, 81 * DAY);
    }

    #[test]
    fn is_due_at_once_when_its_moment_has_passed_while_the_machine_slept() {
        let schedule = RenewalSchedule::new(ninety_days(), 0.5);
        assert_eq!(schedule.wait(at(89 * 86_400)), Duration::ZERO);
        assert_eq!(schedule.wait(at(1000 * 86_400)), Duration::ZERO);
    }

    #[test]
    fn waits_twice_as_long_after_each_failure_up_to_a_limit() {
        let mut schedule = RenewalSchedule::new(ninety_days(), 0.0);
        let mut waits = Vec::new();
        for _ in 0..20 {
            schedule.failed(at(0), 1.0);
            waits.push(schedule.wait(at(0)));
        }
        assert!(
            waits
                .windows(2)
                .all(|w| w[1] == w[0] * 2 || w[1] == MAX_BACK_OFF),
            "{waits:?}"
        );
        assert_eq!(waits[19], MAX_BACK_OFF);
        schedule.failed(at(0), 0.0);
        assert_eq!(schedule.wait(at(0)), MAX_BACK_OFF / 2);
    }

    #[test]
    fn a_certificate_of_seconds_gets_several_attempts_before_it_ends() {
        let mut schedule =
            RenewalSchedule::new(Validity::starting(at(0), Duration::from_secs(10)), 1.0);
        let mut now = at(0) + schedule.wait(at(0));
        let mut attempts = 0;
        while now < schedule.validity().expires {
            attempts += 1;
            schedule.failed(now, 1.0);
            now += schedule.wait(now);
        }
        assert!(attempts >= 3, "{attempts} attempts");
    }
}
