//! When a certificate has to be asked for.
//!
//! ```text
//!  issued ------------------ 70 % ~~~ due ~~~ 90 % ---- expires
//!                                      \-- failed: 1, 2, 4 ... times the first wait
//! ```
//! The moment is drawn anew for each certificate, so that ten thousand agents enrolled in one
//! minute do not renew in one minute.

use std::time::Duration;

use time::OffsetDateTime;

use super::{CertificateNames, Signer};
use crate::pki::Validity;

/// Where in a certificate's life its renewal falls due.
const EARLIEST: f64 = 0.7;
const LATEST: f64 = 0.9;

/// The longest sleep before the clock is read again: it may jump, and the machine may sleep.
pub(crate) const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// Waits after a request to a cluster that came to nothing: from the first, doubling, to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// The longest, where nobody has refused anything: the API server is away.
const LONGEST_OUTAGE_WAIT: Duration = Duration::from_secs(30);
/// Who was not refused for so long is not refused in a row.
const REFUSALS_APART: Duration = Duration::from_mins(15);

/// With other signers the first and the longest wait are parts of the certificate's life: one of
/// seconds is retried in time as well as one of months.
const FIRST_WAIT_PART: u32 = 2000;
const LONGEST_WAIT_PART: u32 = 50;
/// What every such wait is at least: a server that refuses must not be flooded.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);

/// Decides, over the certificate in use and the names that it should have.
#[derive(Debug)]
pub(super) struct Rotation {
    signer: Signer,
    held: Option<InUse>,
    failures: u32,
    pause: Option<Pause>,
    /// Certificates that were refused, in a row, and when the last was.
    refusals: u32,
    last_refusal: Option<OffsetDateTime>,
}

#[derive(Debug)]
struct InUse {
    names: CertificateNames,
    validity: Validity,
    due: OffsetDateTime,
    refused: bool,
}

/// Nothing is asked for meanwhile.
#[derive(Clone, Copy, Debug)]
struct Pause {
    begins: OffsetDateTime,
    wait: Duration,
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
    ClockSetBack,
    Due,
}

impl Rotation {
    pub(super) fn new(signer: Signer) -> Self {
        Self {
            signer,
            held: None,
            failures: 0,
            pause: None,
            refusals: 0,
            last_refusal: None,
        }
    }

    /// A certificate that was stored is in use from now on. `jitter` in 0..1 is random.
    pub(super) fn load(&mut self, names: CertificateNames, validity: Validity, jitter: f64) {
        let part = EARLIEST + (LATEST - EARLIEST) * jitter.clamp(0.0, 1.0);
        self.held = Some(InUse {
            names,
            validity,
            due: validity.issued + life(validity).mul_f64(part),
            refused: false,
        });
    }

    /// A new certificate is in use from now on. `jitter` in 0..1 is random.
    pub(super) fn hold(
        &mut self,
        names: CertificateNames,
        validity: Validity,
        now: OffsetDateTime,
        jitter: f64,
    ) {
        self.load(names, validity, jitter);
        if self.held.as_ref().is_some_and(|held| held.due <= now) {
            // A clock is wrong, or the signer mean: the next one will be no better.
            self.failed(true, now, jitter);
        } else {
            self.names_changed();
        }
    }

    /// What failed before may work now.
    pub(super) fn names_changed(&mut self) {
        self.failures = 0;
        self.pause = None;
    }

    /// A request came to nothing: the next one comes later, each time twice as late. `jitter` in
    /// 0..1 is random. Returns the wait.
    pub(super) fn failed(&mut self, refused: bool, now: OffsetDateTime, jitter: f64) -> Duration {
        let (first, longest) = self.waits(refused);
        let wait = backed_off(first, self.failures, longest, jitter);
        self.failures = self.failures.saturating_add(1);
        self.pause = Some(Pause { begins: now, wait });
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
            Some(before) => backed_off(FIRST_WAIT, before, LONGEST_WAIT, jitter),
        };
        self.refusals = self.refusals.saturating_add(1);
        self.last_refusal = Some(now);
        if self.pause.is_none_or(|pause| pause.left(now) < wait) {
            self.pause = Some(Pause { begins: now, wait });
        }
        wait
    }

    pub(super) fn is_refused(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.refused)
    }

    /// What to do, where the certificate should have these names.
    pub(super) fn next(&self, wanted: Option<&CertificateNames>, now: OffsetDateTime) -> Next {
        let why = match (&self.held, wanted) {
            (None, _) => Why::First,
            (Some(held), Some(wanted)) if !self.serves(&held.names, wanted) => Why::NamesChanged,
            (Some(held), _) if held.refused => Why::Refused,
            (Some(held), _) if self.is_of_the_future(held.validity, now) => Why::ClockSetBack,
            (Some(held), _) if held.due <= now => Why::Due,
            (Some(held), _) => return Next::Wait((held.due - now).unsigned_abs()),
        };
        if wanted.is_none() {
            return Next::AwaitNames;
        }
        match self.pause.map_or(Duration::ZERO, |pause| pause.left(now)) {
            Duration::ZERO => Next::Request(why),
            wait => Next::Wait(wait),
        }
    }

    fn serves(&self, has: &CertificateNames, wanted: &CertificateNames) -> bool {
        match self.signer {
            Signer::Cluster { exact: false } => has.contains(wanted),
            _ => has == wanted,
        }
    }

    /// Other signers have clocks of their own, and it is this one that is wrong perhaps.
    fn is_of_the_future(&self, validity: Validity, now: OffsetDateTime) -> bool {
        self.signer == Signer::Own && !validity.has_begun(now)
    }

    /// The first and the longest wait.
    fn waits(&self, refused: bool) -> (Duration, Duration) {
        match self.signer {
            Signer::Cluster { .. } if refused => (FIRST_WAIT, LONGEST_WAIT),
            Signer::Cluster { .. } => (FIRST_WAIT, LONGEST_OUTAGE_WAIT),
            Signer::Own | Signer::Server => {
                let held = self.held.as_ref();
                let life = held.map_or(Duration::ZERO, |held| life(held.validity));
                let longest = life / LONGEST_WAIT_PART;
                (
                    (life / FIRST_WAIT_PART).max(SHORTEST_WAIT),
                    longest.clamp(SHORTEST_WAIT, LONGEST_WAIT),
                )
            }
        }
    }
}

impl Pause {
    /// Nothing, once the clock has been set back: the end may be years away.
    fn left(self, now: OffsetDateTime) -> Duration {
        let passed = Duration::try_from(now - self.begins);
        passed.map_or(Duration::ZERO, |passed| self.wait.saturating_sub(passed))
    }
}

/// The wait after so many failures before this one.
fn backed_off(first: Duration, failures: u32, longest: Duration, jitter: f64) -> Duration {
    first
        .saturating_mul(1 << failures.min(16))
        .min(longest)
        .mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

fn life(validity: Validity) -> Duration {
    (validity.expires - validity.issued)
        .try_into()
        .unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
