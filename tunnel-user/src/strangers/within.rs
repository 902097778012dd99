//! How long a stage may take, and why somebody gets no further.

use std::{future::Future, io, time::Duration};

use tokio::time::timeout;

use super::Permit;

/// Why a caller got no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Left {
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
pub(crate) async fn within<T>(
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
