//! What is told of callers that get no further on their way through TLS.

use std::io;

use crate::{
    model::{PeerAddr, printable},
    strangers::Left,
};

pub(super) fn tell(peer: PeerAddr, left: &Left) {
    let error = printable(&left.to_string());
    match left {
        // An agent of ours, perhaps, and not to be lost among those who say anything.
        Left::Failed(cause) if is_about_certificate(cause) => {
            tracing::info!(%peer, error, "TLS handshake failed: the certificate");
        }
        _ => tracing::info!(%peer, error, "TLS handshake failed"),
    }
}

/// Whether the caller showed a certificate that does not count.
fn is_about_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}
