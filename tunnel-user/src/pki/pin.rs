//! A CA's fingerprint, short enough for a command line.

use std::{fmt, str::FromStr};

use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// SHA-256 of a CA's `SubjectPublicKeyInfo`, written `sha256:<hex>` as kubeadm's
/// [`--discovery-token-ca-cert-hash`][kubeadm] is.
///
/// [kubeadm]: https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-join/
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CaPin([u8; 32]);

/// Why a string is not a [`CaPin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a CA hash: expected sha256: and 64 hexadecimal digits, as `culvert token create` prints it"
)]
pub struct InvalidPin(String);

impl CaPin {
    /// The pin of this certificate's key; `None` where the certificate cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(Self(Sha256::digest(parsed.public_key().raw).into()))
    }
}

impl FromStr for CaPin {
    type Err = InvalidPin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPin(text.to_owned());
        let digits = text.strip_prefix("sha256:").ok_or_else(invalid)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).map_err(|_| invalid())?;
        Ok(Self(hash))
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_back_as_it_was_written() {
        let pin = CaPin([0xab; 32]);
        assert_eq!(pin.to_string().parse(), Ok(pin));
    }

    #[test]
    fn what_is_not_a_pin_is_refused_with_its_form() {
        let short = format!("sha256:{}", "a".repeat(63));
        let bare = "a".repeat(64);
        for text in ["", "sha256:", "sha1:abcd", "sha256:zz", &short, &bare] {
            let error = text.parse::<CaPin>().unwrap_err().to_string();
            assert!(
                error.contains("sha256:") && error.contains("token create"),
                "{error}"
            );
        }
    }
}
