//! Whether a certificate, just issued or found on disk, is one that culvert can use.

use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::kind::CertificateKind;
use crate::{
    certificates::CertificateNames,
    observability::chain,
    pki::{AlternativeNames, Credential, SubjectKey, UnreadableExtension, verify_chain},
};

/// Why it is not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it cannot be read")]
    Unreadable,
    #[error("it is for another key")]
    OtherKey,
    #[error("it is of {0:?}, whom nobody asked for")]
    OtherSubject(String),
    #[error("it expired at {0}")]
    Expired(OffsetDateTime),
    #[error("{0}")]
    Chain(String),
}

/// Checks a credential against its kind and the cluster's CAs; returns the names it vouches for.
pub(super) fn names_of_usable(
    credential: &Credential,
    kind: &CertificateKind,
    cas: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<CertificateNames, Unusable> {
    let (_, certificate) =
        X509Certificate::from_der(credential.leaf()).map_err(|_| Unusable::Unreadable)?;
    let key = KeyPair::try_from(&credential.key).map_err(|_| Unusable::OtherKey)?;
    if SubjectKey::of(certificate.public_key().raw)
        != SubjectKey::of(&key.subject_public_key_info())
    {
        return Err(Unusable::OtherKey);
    }
    if !kind.subject.is_exactly(certificate.subject()) {
        return Err(Unusable::OtherSubject(certificate.subject().to_string()));
    }
    if credential.validity.has_ended(now) {
        return Err(Unusable::Expired(credential.validity.expires));
    }
    verify_chain(&credential.chain, cas, kind.purpose, now)
        .map_err(|error| Unusable::Chain(chain(&error)))?;
    let names = AlternativeNames::of(certificate.extensions())?;
    Ok(CertificateNames {
        dns: names.dns.iter().map(ToString::to_string).collect(),
        ips: names.ips.into_iter().collect(),
    })
}

impl From<UnreadableExtension> for Unusable {
    fn from(_: UnreadableExtension) -> Self {
        Self::Unreadable
    }
}
