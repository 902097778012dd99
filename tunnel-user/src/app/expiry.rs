//! Keeps the metric of certificates' expiry true.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{observability::metrics::Certificates, pki::Validity};

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
