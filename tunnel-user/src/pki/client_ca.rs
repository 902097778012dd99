//! Which certificates of a bundle may say who a client is.
//!
//! webpki takes whatever it is given for a CA. What Go would not take for one, the API server does not take either: a
//! bundle may hold the certificate of a server besides its CA's, whose holder must not become a CA by that.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::Validity;

/// Why a certificate makes nobody a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAClientCa {
    /// It cannot be read.
    #[error("it cannot be read as the certificate of a CA")]
    Unreadable,
    /// It is somebody's, but signs for nobody.
    #[error(
        "it is not the certificate of a CA: its basic constraints or its key usage do not say so"
    )]
    NotACa,
    /// It is not good at this time.
    #[error("it has ended, or has not begun")]
    NotNow,
}

/// Checks that the API server would take what this CA has signed.
pub fn check_client_ca(ca: &CertificateDer<'_>, now: OffsetDateTime) -> Result<(), NotAClientCa> {
    let parsed = X509Certificate::from_der(ca);
    let (_, parsed) = parsed.map_err(|_| NotAClientCa::Unreadable)?;
    let signs = parsed.key_usage().map_err(|_| NotAClientCa::Unreadable)?;
    let signs = signs.is_none_or(|usage| usage.value.key_cert_sign());
    if !parsed.is_ca() || !signs {
        return Err(NotAClientCa::NotACa);
    }
    let validity = Validity::of(ca).ok_or(NotAClientCa::Unreadable)?;
    if validity.has_ended(now) || !validity.has_begun(now) {
        return Err(NotAClientCa::NotNow);
    }
    let mut roots = RootCertStore::empty();
    let added = roots.add(ca.clone().into_owned());
    added.map_err(|_| NotAClientCa::Unreadable)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
    use time::Duration;

    use super::*;

    fn made(edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_ca_is_one_that_may_sign_and_has_not_ended() {
        let now = OffsetDateTime::now_utc();
        let check = |certificate: &CertificateDer<'_>| check_client_ca(certificate, now);
        assert_eq!(check(&made(|_| ())), Ok(()));
        let signs = made(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
        assert_eq!(check(&signs), Ok(()));
        for other in [
            made(|params| params.is_ca = IsCa::NoCa),
            made(|params| params.is_ca = IsCa::ExplicitNoCa),
            made(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        ] {
            assert_eq!(check(&other), Err(NotAClientCa::NotACa));
        }
        for past_or_future in [
            made(|params| params.not_after = now - Duration::days(1)),
            made(|params| params.not_before = now + Duration::days(1)),
        ] {
            assert_eq!(check(&past_or_future), Err(NotAClientCa::NotNow));
        }
        let cut = CertificateDer::from(signs[..20].to_vec());
        assert_eq!(check(&cut), Err(NotAClientCa::Unreadable));
    }
}
