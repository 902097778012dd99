//! Who leads: the decisions, over a Lease as it was seen and written.
//!
//! ```text
//!  seen --- holder renews ---> seen again           (whoever else holds it: wait)
//!    \--- unchanged for its duration ---> claimed   (by the first to write)
//!  written --- RENEW_TIME without another write ---> does not lead any more
//! ```
//! Times in the Lease are other machines' clocks and never compared: a holder is gone when *we* have
//! seen no change for the Lease's duration. A leader gives up earlier than that, and every write
//! names the version that was read; so there is one leader at most. The algorithm is client-go's:
//! <https://pkg.go.dev/k8s.io/client-go/tools/leaderelection>

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};

/// How long the others wait for a leader that does not renew its Lease.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// How long a leader leads without having renewed it.
pub(super) const RENEW_TIME: Duration = Duration::from_secs(10);
/// The pause between two looks at the Lease.
pub(super) const PAUSE: Duration = Duration::from_secs(2);

/// Somebody who would lead.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    seen: Option<Seen>,
    /// When the write began that made us the holder last.
    renewed: Option<Instant>,
}

/// The Lease's content, and since when it has been that.
#[derive(Debug)]
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

impl Candidate {
    pub(super) fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
            renewed: None,
        }
    }

    /// The Lease was read, or is not there. Returns what to write, if it is ours to take or renew.
    pub(super) fn look(
        &mut self,
        lease: Option<&Lease>,
        now: Instant,
        clock: Timestamp,
    ) -> Option<LeaseSpec> {
        let spec = lease
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        self.see(spec.clone(), now);
        let holder = holder_of(&spec);
        let is_ours = holder == Some(self.identity.as_str());
        if !is_ours {
            self.renewed = None;
            if holder.is_some() && !self.has_run_out(now) {
                return None;
            }
        }
        let clock = MicroTime(clock);
        Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(clock.clone()),
            acquire_time: spec.acquire_time.filter(|_| is_ours).or(Some(clock)),
            lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(!is_ours)),
            ..LeaseSpec::default()
        })
    }

    /// What [`look`](Self::look) returned was written; the attempt began at `began`.
    pub(super) fn wrote(&mut self, spec: LeaseSpec, began: Instant) {
        self.see(spec, began);
        self.renewed = Some(began);
    }

    /// Until when we lead; `None` while we do not.
    pub(super) fn leads_until(&self, now: Instant) -> Option<Instant> {
        let end = self.renewed? + RENEW_TIME;
        (now < end).then_some(end)
    }

    /// Who leads, as far as we know.
    pub(super) fn leader(&self, now: Instant) -> Option<&str> {
        let holder = holder_of(&self.seen.as_ref()?.spec);
        holder.filter(|_| !self.has_run_out(now))
    }

    /// What to write in order to leave the Lease to others at once; `None` while we do not lead.
    pub(super) fn release(&self, now: Instant) -> Option<LeaseSpec> {
        self.leads_until(now)?;
        let seen = self.seen.as_ref()?;
        Some(LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            ..seen.spec.clone()
        })
    }

    fn see(&mut self, spec: LeaseSpec, now: Instant) {
        if self.seen.as_ref().is_none_or(|seen| seen.spec != spec) {
            self.seen = Some(Seen { spec, since: now });
        }
    }

    fn has_run_out(&self, now: Instant) -> bool {
        let Some(seen) = &self.seen else { return true };
        let seconds = seen.spec.lease_duration_seconds.unwrap_or(0);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        now.saturating_duration_since(seen.since) >= duration
    }
}

fn holder_of(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Lease that a test's candidates share, without an API server in between.
    struct Table {
        lease: Option<Lease>,
        start: Instant,
    }

    impl Table {
        fn new() -> Self {
            Self {
                lease: None,
                start: Instant::now(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// Looks, and writes what is to be written; whether the candidate leads then.
        fn turn(&mut self, candidate: &mut Candidate, seconds: u64) -> bool {
            let now = self.at(seconds);
            // No two machines' clocks agree: this one's is years late for one of the candidates.
            let skew = if candidate.identity == "b" {
                0
            } else {
                1_000_000_000
            };
            let clock = Timestamp::from_second(skew + i64::try_from(seconds).unwrap()).unwrap();
            if let Some(spec) = candidate.look(self.lease.as_ref(), now, clock) {
                self.put(spec.clone());
                candidate.wrote(spec, now);
            }
            candidate.leads_until(now).is_some()
        }

        fn put(&mut self, spec: LeaseSpec) {
            self.lease = Some(Lease {
                spec: Some(spec),
                ..Lease::default()
            });
        }
    }

    fn candidates() -> (Candidate, Candidate) {
        (
            Candidate::new("a".to_owned()),
            Candidate::new("b".to_owned()),
        )
    }

    #[test]
    fn the_first_leads_for_as_long_as_it_renews() {
        let mut table = Table::new();
        let (mut a, mut b) = candidates();
        for seconds in (0..60).step_by(2) {
            assert!(table.turn(&mut a, seconds), "a leads after {seconds} s");
            assert!(!table.turn(&mut b, seconds + 1), "b does not");
            assert_eq!(b.leader(table.at(seconds + 1)), Some("a"));
        }
        let spec = table.lease.unwrap().spec.unwrap();
        assert_eq!(spec.lease_transitions, Some(1));
        assert_ne!(spec.acquire_time, spec.renew_time);
    }

    #[test]
    fn a_leader_that_cannot_renew_gives_up_before_another_takes_over() {
        let mut table = Table::new();
        let (mut a, mut b) = candidates();
        assert!(table.turn(&mut a, 0));
        for seconds in 1..16 {
            assert!(!table.turn(&mut b, seconds), "after {seconds} s");
            assert_eq!(a.leads_until(table.at(seconds)).is_some(), seconds < 10);
        }
        assert!(table.turn(&mut b, 16));
        assert!(!table.turn(&mut a, 17), "it is too late for a");
        assert_eq!(a.leader(table.at(17)), Some("b"));
    }

    #[test]
    fn nobody_waits_for_a_leader_that_released_the_lease() {
        let mut table = Table::new();
        let (mut a, mut b) = candidates();
        assert!(table.turn(&mut a, 0));
        assert!(!table.turn(&mut b, 1));
        assert_eq!(b.release(table.at(1)), None, "not b's to release");
        let released = a.release(table.at(2)).expect("a leads");
        table.put(released);
        assert!(table.turn(&mut b, 3));
    }

    #[test]
    fn a_lease_that_was_deleted_is_made_again() {
        let mut table = Table::new();
        let (mut a, _) = candidates();
        assert!(table.turn(&mut a, 0));
        table.lease = None;
        assert!(table.turn(&mut a, 2));
        assert!(table.lease.is_some());
    }

    #[test]
    fn a_leader_that_finds_another_holder_leads_no_more() {
        let mut table = Table::new();
        let (mut a, mut b) = candidates();
        assert!(table.turn(&mut a, 0));
        table.lease = None;
        assert!(table.turn(&mut b, 1));
        assert!(!table.turn(&mut a, 2));
    }
}
