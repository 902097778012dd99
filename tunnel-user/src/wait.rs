//! Helpers for waiting: for a time that may not be set, and for a value of a `watch` channel whose sender may be gone.

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Resolves at that moment; never where there is none.
pub(crate) async fn sleep_until_opt(moment: Option<impl Into<Instant>>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Resolves once the value is so; never once nobody can send one that is.
pub(crate) async fn wait_for<T>(values: &mut watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) {
    if values.wait_for(is_so).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when there is another value; never once nobody can send one.
pub(crate) async fn changed<T>(values: &mut watch::Receiver<T>) {
    if values.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves to true when there is another value; to false at the shutdown, or once nobody can send one.
pub(crate) async fn changed_before<T>(
    values: &mut watch::Receiver<T>,
    shutdown: &CancellationToken,
) -> bool {
    tokio::select! {
        open = values.changed() => open.is_ok(),
        () = shutdown.cancelled() => false,
    }
}
