//! Callers on their way through TLS: how long each stage may take, and what is told of those that get no further.

use std::{future::Future, io, time::Duration};

use tokio::time::timeout;

use super::preauth::Permit;
use crate::model::{PeerAddr, printable};

/// Why a caller got no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Left {
    /// Somebody else needed the place.
    #[error("it made room for other callers")]
    Evicted,
    /// The caller, or the network between.
    #[error("it took too long")]
    TooSlow,
    /// No place was free for long.
    #[error("this server is too busy")]
    TooBusy,
    /// What it sent is no TLS, or not what we accept; or it has gone.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// One stage of the handshake, unless it takes too long or another caller needs the place.
pub(super) async fn within<T>(
    time: Duration,
    permit: &Permit,
    stage: impl Future<Output = io::Result<T>>,
) -> Result<T, Left> {
    let done = tokio::select! {
        done = timeout(time, permit.with_peer(stage)) => done,
        () = permit.evicted() => return Err(Left::Evicted),
    };
    match done {
        Ok(done) => Ok(done?),
        Err(_elapsed) => Err(Left::TooSlow),
    }
}

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
