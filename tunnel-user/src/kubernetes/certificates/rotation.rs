//! When a certificate has to be asked for.

use std::time::Duration;

use time::OffsetDateTime;

use super::{CertificateNames, kind::CertificateKind};
use crate::pki::{RenewalSchedule, Validity};

/// Waits after a request that came to nothing: from the first, doubling, to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// Who was not refused for so long is not refused in a row.
const REFUSALS_APART: Duration = Duration::from_mins(15);
/// The longest, where nobody has refused anything: the API server is away.
const LONGEST_OUTAGE_WAIT: Duration = Duration::from_secs(30);

/// Decides, over the certificate in use and the names that it should have.
#[derive(Debug)]
pub(super) struct Rotation {
    exact: bool,
    held: Option<InUse>,
    failures: u32,
    not_before: Option<OffsetDateTime>,
    /// Certificates that were refused, in a row, and when the last was.
    refusals: u32,
    last_refusal: Option<OffsetDateTime>,
}

#[derive(Debug)]
struct InUse {
    names: CertificateNames,
    schedule: RenewalSchedule,
    refused: bool,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for a certificate, for this reason.
    Request(Why),
    /// Nothing, for so long.
    Wait(Duration),
    /// Nothing until somebody says what the names are.
    AwaitNames,
}

/// Why a certificate is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    First,
    NamesChanged,
    Refused,
    Due,
}

impl Rotation {
    pub(super) fn new(kind: &CertificateKind) -> Self {
        Self {
            exact: kind.exact,
            held: None,
            failures: 0,
            not_before: None,
            refusals: 0,
            last_refusal: None,
        }
    }

    /// A certificate is in use from now on. `jitter` in 0..1 is random.
    pub(super) fn hold(
        &mut self,
        names: CertificateNames,
        validity: Validity,
        now: OffsetDateTime,
        jitter: f64,
    ) {
        let schedule = RenewalSchedule::new(validity, jitter);
        if schedule.wait(now).is_zero() {
            // A clock is wrong, or the signer mean: the next one will be no better.
            self.failed(true, now, jitter);
        } else {
            self.names_changed();
        }
        self.held = Some(InUse {
            names,
            schedule,
            refused: false,
        });
    }

    /// What failed before may work now.
    pub(super) fn names_changed(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    /// A request came to nothing: the next one comes later, each time twice as late. `jitter` in
    /// 0..1 is random. Returns the wait.
    pub(super) fn failed(&mut self, refused: bool, now: OffsetDateTime, jitter: f64) -> Duration {
        let longest = if refused {
            LONGEST_WAIT
        } else {
            LONGEST_OUTAGE_WAIT
        };
        let wait = backed_off(self.failures, longest, jitter);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + wait);
        wait
    }

    /// The certificate in use is not taken any more. The first time another one is asked for at
    /// once; where that one is refused too, later, each time twice as late: each is a request that
    /// somebody has to sign. `jitter` in 0..1 is random. Returns the wait.
    pub(super) fn refused(&mut self, now: OffsetDateTime, jitter: f64) -> Duration {
        if let Some(held) = &mut self.held {
            held.refused = true;
        }
        if self
            .last_refusal
            .is_none_or(|last| now - last > REFUSALS_APART)
        {
            self.refusals = 0;
        }
        let wait = match self.refusals.checked_sub(1) {
            None => Duration::ZERO,
            Some(before) => backed_off(before, LONGEST_WAIT, jitter),
        };
        self.refusals = self.refusals.saturating_add(1);
        self.last_refusal = Some(now);
        self.not_before = self.not_before.max(Some(now + wait));
        wait
    }

    pub(super) fn is_refused(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.refused)
    }

    /// What to do, where the certificate should have these names.
    pub(super) fn next(&self, desired: Option<&CertificateNames>, now: OffsetDateTime) -> Next {
        let why = match (&self.held, desired) {
            (None, None) => return Next::AwaitNames,
            (None, Some(_)) => Why::First,
            (Some(held), Some(desired)) if !self.serves(&held.names, desired) => Why::NamesChanged,
            (Some(held), None) if held.refused => return Next::AwaitNames,
            (Some(held), Some(_)) if held.refused => Why::Refused,
            (Some(held), _) => match held.schedule.wait(now) {
                Duration::ZERO if desired.is_none() => return Next::AwaitNames,
                Duration::ZERO => Why::Due,
                wait => return Next::Wait(wait),
            },
        };
        match self.not_before.map(|moment| moment - now) {
            Some(wait) if wait.is_positive() => Next::Wait(wait.unsigned_abs()),
            Some(_) | None => Next::Request(why),
        }
    }

    fn serves(&self, has: &CertificateNames, desired: &CertificateNames) -> bool {
        if self.exact {
            has == desired
        } else {
            has.contains(desired)
        }
    }
}

/// The wait after so many failures before this one.
fn backed_off(failures: u32, longest: Duration, jitter: f64) -> Duration {
    FIRST_WAIT
        .saturating_mul(1 << failures.min(16))
        .min(longest)
        .mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::certificates::kind::{AGENT, SERVER};

    const HOUR: Duration = Duration::from_hours(1);

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds)
    }

    fn names(ips: &[&str]) -> CertificateNames {
        CertificateNames {
            dns: ["edge-1".to_owned()].into(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    fn holding(kind: &CertificateKind, ips: &[&str]) -> Rotation {
        let mut rotation = Rotation::new(kind);
        rotation.hold(names(ips), Validity::starting(at(0), HOUR), at(0), 0.5);
        rotation
    }

    #[test]
    fn the_first_is_asked_for_as_soon_as_its_names_are_known() {
        let rotation = Rotation::new(&SERVER);
        assert_eq!(rotation.next(None, at(0)), Next::AwaitNames);
        let desired = names(&["10.0.0.1"]);
        assert_eq!(
            rotation.next(Some(&desired), at(0)),
            Next::Request(Why::First)
        );
    }

    #[test]
    fn a_missing_name_is_a_reason_for_both_and_a_superfluous_one_for_an_agent() {
        let one_more = names(&["10.0.0.1", "10.0.0.2"]);
        let one_less = names(&[]);
        for (kind, less_is_a_reason) in [(&SERVER, false), (&AGENT, true)] {
            let rotation = holding(kind, &["10.0.0.1"]);
            let changed = Next::Request(Why::NamesChanged);
            assert_eq!(rotation.next(Some(&one_more), at(0)), changed);
            let next = rotation.next(Some(&one_less), at(0));
            assert_eq!(next == changed, less_is_a_reason, "{next:?}");
            assert_eq!(
                rotation.next(Some(&names(&["10.0.0.1"])), at(0)),
                Next::Wait(HOUR.mul_f64(0.8))
            );
        }
    }

    #[test]
    fn it_is_renewed_in_time_once_the_names_are_known_again() {
        let rotation = holding(&SERVER, &["10.0.0.1"]);
        assert_eq!(rotation.next(None, at(0)), Next::Wait(HOUR.mul_f64(0.8)));
        assert_eq!(rotation.next(None, at(2880)), Next::AwaitNames);
        let due = rotation.next(Some(&names(&["10.0.0.1"])), at(2880));
        assert_eq!(due, Next::Request(Why::Due));
    }

    #[test]
    fn a_certificate_that_is_due_when_it_comes_is_not_renewed_in_a_loop() {
        let mut rotation = Rotation::new(&AGENT);
        let names = names(&["10.0.0.1"]);
        let validity = Validity::starting(at(0), HOUR);
        for wait in [5, 10, 20] {
            rotation.hold(names.clone(), validity, at(3500), 1.0);
            let wait = Duration::from_secs(wait);
            assert_eq!(rotation.next(Some(&names), at(3500)), Next::Wait(wait));
            let later = rotation.next(Some(&names), at(3500) + wait);
            assert_eq!(later, Next::Request(Why::Due));
        }
        rotation.hold(names.clone(), validity, at(0), 1.0);
        assert_eq!(
            rotation.next(Some(&names), at(0)),
            Next::Wait(HOUR.mul_f64(0.9))
        );
    }

    #[test]
    fn a_refused_one_is_replaced_at_once_and_refusals_in_a_row_ever_later() {
        let mut rotation = holding(&AGENT, &["10.0.0.1"]);
        let desired = names(&["10.0.0.1"]);
        let mut now = at(0);
        for wait in [0, 5, 10, 20].map(Duration::from_secs) {
            assert!(!rotation.is_refused());
            assert_eq!(rotation.refused(now, 1.0), wait);
            assert!(rotation.is_refused());
            if !wait.is_zero() {
                assert_eq!(rotation.next(Some(&desired), now), Next::Wait(wait));
            }
            now += wait;
            let next = rotation.next(Some(&desired), now);
            assert_eq!(next, Next::Request(Why::Refused));
            let validity = Validity::starting(now, HOUR);
            rotation.hold(desired.clone(), validity, now, 0.5);
        }
        now += REFUSALS_APART + FIRST_WAIT;
        assert_eq!(rotation.refused(now, 1.0), Duration::ZERO);
    }

    #[test]
    fn what_fails_is_tried_again_ever_later_and_at_once_with_other_names() {
        let mut rotation = Rotation::new(&AGENT);
        let desired = names(&["10.0.0.1"]);
        let waits: Vec<_> = (0..10).map(|_| rotation.failed(true, at(0), 1.0)).collect();
        assert_eq!(waits[..3], [5, 10, 20].map(Duration::from_secs));
        assert_eq!(waits[9], LONGEST_WAIT);
        assert_eq!(
            rotation.next(Some(&desired), at(1)),
            Next::Wait(Duration::from_secs(299))
        );
        let outage = rotation.failed(false, at(0), 1.0);
        assert_eq!(outage, LONGEST_OUTAGE_WAIT);
        let later = rotation.next(Some(&desired), at(300));
        assert_eq!(later, Next::Request(Why::First));
        rotation.names_changed();
        let changed = rotation.next(Some(&desired), at(1));
        assert_eq!(changed, Next::Request(Why::First));
    }
}
