//! What a certificate says that it is for.
//!
//! webpki, as RFC 5280 has it, takes a certificate that says nothing for one of every use. Of the
//! signers that culvert relies on none makes such a certificate, so one is somebody else's.

use x509_parser::certificate::X509Certificate;

use super::Purpose;

/// A certificate of the right CA that is not for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the certificate is not one for {}: its extended key usage does not name {}",
    .0.holders(), .0.usage()
)]
pub struct WrongUsage(Purpose);

impl Purpose {
    fn usage(self) -> &'static str {
        match self {
            Self::Client => "clientAuth",
            Self::Server => "serverAuth",
        }
    }

    fn holders(self) -> &'static str {
        match self {
            Self::Client => "clients",
            Self::Server => "servers",
        }
    }
}

/// Checks that the certificate names this use itself; "any use" does not count.
pub(super) fn check_usage(
    certificate: &X509Certificate<'_>,
    purpose: Purpose,
) -> Result<(), WrongUsage> {
    let usages = certificate.extended_key_usage().ok().flatten();
    let is_named = usages.is_some_and(|usages| match purpose {
        Purpose::Client => usages.value.client_auth,
        Purpose::Server => usages.value.server_auth,
    });
    is_named.then_some(()).ok_or(WrongUsage(purpose))
}
