//! What is shown of certificates: in the metrics, and by `culvert status`.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    observability::{metrics::Certificates, status::CertificateStatus},
    pki::Validity,
};

/// Follows the certificate of this name, which may have to come to be first, until the shutdown.
pub(super) async fn follow_expiry<V: Copy + Into<Option<Validity>>>(
    name: &'static str,
    mut validities: watch::Receiver<V>,
    certificates: Certificates,
    shutdown: CancellationToken,
) {
    loop {
        let validity: Option<Validity> = (*validities.borrow_and_update()).into();
        if let Some(validity) = validity {
            certificates.set_expiry(name, validity.expires);
        }
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
