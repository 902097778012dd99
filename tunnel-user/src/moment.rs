//! Waiting for what may never come.

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Resolves at that moment; never where there is none.
pub(crate) async fn until(moment: Option<impl Into<Instant>>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Resolves once the value is so; never once nobody can send one that is.
pub(crate) async fn holds<T>(values: &mut watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) {
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
