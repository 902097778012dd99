//! What is shown of certificates: in the metrics, and by `culvert status`.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    observability::{metrics::Certificates, status::CertificateStatus},
    pki::Validity,
};

/// Follows the certificate of this name until the shutdown.
pub(super) async fn follow_expiry(
    name: &'static str,
    mut validities: watch::Receiver<Validity>,
    certificates: Certificates,
    shutdown: CancellationToken,
) {
    loop {
        certificates.set_expiry(name, validities.borrow_and_update().expires);
        tokio::select! {
            changed = validities.changed() => if changed.is_err() {
                return shutdown.cancelled().await;
            },
            () = shutdown.cancelled() => return,
        }
    }
}

/// A certificate as the status shows it.
pub(super) fn certificate_status(
    name: &str,
    subject: Option<String>,
    validity: Validity,
) -> CertificateStatus {
    CertificateStatus {
        name: name.to_owned(),
        subject,
        valid_from: validity.issued,
        expires_at: validity.expires,
    }
}
