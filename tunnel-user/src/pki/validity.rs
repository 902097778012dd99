//! How long a certificate lives.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// How far `notBefore` lies before the moment of issue, so that a machine whose clock is a little
/// late accepts a new certificate. Kubernetes' signers do the same.
pub(super) const BACKDATE: time::Duration = time::Duration::minutes(5);

/// The life of a certificate: from its issue (not its backdated `notBefore`) to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When it was issued.
    pub issued: OffsetDateTime,
    /// When it ends (`notAfter`).
    pub expires: OffsetDateTime,
}

impl Validity {
    /// A life of `life` that begins now.
    pub fn starting(now: OffsetDateTime, life: Duration) -> Self {
        // Certificates carry whole seconds: a life shorter than one would be over at once.
        let now = now.replace_nanosecond(0).unwrap_or(now);
        Self {
            issued: now,
            expires: now.saturating_add(life.max(Duration::from_secs(1)).try_into().unwrap_or(
                // Longer than `time` can express.
                time::Duration::MAX,
            )),
        }
    }

    /// The life that a certificate states; `None` where it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        Some(Self {
            issued: validity.not_before.to_datetime() + BACKDATE,
            expires: validity.not_after.to_datetime(),
        })
    }

    /// Whether it is over.
    pub fn has_ended(&self, now: OffsetDateTime) -> bool {
        now >= self.expires
    }

    /// Whether it has begun: not if the clock was ahead when it was issued, or is behind now.
    pub fn has_begun(&self, now: OffsetDateTime) -> bool {
        self.not_before() <= now
    }

    /// What `notBefore` says.
    pub(super) fn not_before(&self) -> OffsetDateTime {
        self.issued.saturating_sub(BACKDATE)
    }
}
