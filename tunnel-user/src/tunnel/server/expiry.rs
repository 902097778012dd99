//! The end of a caller's certificate.
//!
//! TLS looks at it once, when hands are shaken; a session may last for years.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::pki::Validity;

/// How often the clock is asked: it may be set, and a machine may sleep.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Resolves when the certificate is over; never without one.
pub(super) async fn expired(certificate: Option<&CertificateDer<'_>>) {
    let Some(validity) = certificate.and_then(Validity::of) else {
        return std::future::pending().await;
    };
    while let Some(left) = left(validity, OffsetDateTime::now_utc()) {
        sleep(left.min(LOOK_AGAIN)).await;
    }
}

fn left(validity: Validity, now: OffsetDateTime) -> Option<Duration> {
    let left = validity.expires - now;
    left.try_into()
        .ok()
        .filter(|left: &Duration| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_ends_at_the_certificates_end() {
        let start = OffsetDateTime::UNIX_EPOCH;
        let validity = Validity::starting(start, Duration::from_mins(1));
        assert_eq!(left(validity, start), Some(Duration::from_mins(1)));
        let late = start + Duration::from_millis(59_999);
        assert_eq!(left(validity, late), Some(Duration::from_millis(1)));
        assert_eq!(left(validity, start + Duration::from_mins(1)), None);
        assert_eq!(left(validity, start + Duration::from_secs(61)), None);
    }
}
