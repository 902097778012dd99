//! Who issues a certificate, and what it costs to ask.

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::CertificateNames;
use crate::pki::Credential;

/// A certificate and those of its issuers.
pub(crate) type Chain = Vec<CertificateDer<'static>>;
/// The names that a certificate vouches for, or why it cannot be used.
pub(crate) type Judgement = Result<CertificateNames, String>;
/// Hears why it takes long.
pub(crate) type Trouble<'a> = &'a (dyn Fn(String) + Sync);

/// Gets certificates for one holder.
pub(crate) trait Issuer: Send + Sync {
    /// Judges a certificate that was just issued or found on disk.
    fn judge(&self, credential: &Credential, now: OffsetDateTime) -> Judgement;

    /// Gets a certificate. Whoever stops waiting can ask again.
    fn issue(
        &self,
        wanted: &Wanted<'_>,
        trouble: Trouble<'_>,
    ) -> impl Future<Output = anyhow::Result<Chain>> + Send;

    /// Whether the same request cannot succeed any more, after this error.
    fn is_refusal(&self, _: &anyhow::Error) -> bool {
        true
    }
}

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signer {
    /// This process, by its own clock: once that is set back, what was issued before has not begun.
    Own,
    /// A server, at once.
    Server,
    /// The cluster, where each request is an object that somebody has to approve: the key is kept
    /// until there is an answer, and what was issued is used even if it cannot be stored.
    Cluster {
        /// Whether a name too many is as wrong as one too few.
        exact: bool,
    },
}

/// What is wanted of an issuer.
pub(crate) struct Wanted<'a> {
    pub(crate) names: &'a CertificateNames,
    pub(crate) key: &'a KeyPair,
    pub(crate) in_use: Option<&'a Credential>,
}

impl Signer {
    pub(super) fn is_cluster(self) -> bool {
        matches!(self, Self::Cluster { .. })
    }
}
