//! What a server's life waits for, each thing once.

use std::{convert::Infallible, future::pending};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::oneshot;

use super::lifecycle::Event;

/// Futures, and the event that each stands for.
#[derive(Default)]
pub(super) struct Awaited(FuturesUnordered<BoxFuture<'static, Event>>);

/// Held by whoever is waited for.
pub(super) type Guard = oneshot::Sender<Infallible>;

impl Awaited {
    /// The event comes once this resolves.
    pub(super) fn add(&mut self, event: Event, awaited: impl Future<Output = ()> + Send + 'static) {
        self.0.push(Box::pin(async move {
            awaited.await;
            event
        }));
    }

    /// The event comes once the guard is gone: its holder has ended, however it did.
    pub(super) fn guard(&mut self, event: Event) -> Guard {
        let (guard, gone) = oneshot::channel();
        self.add(event, async {
            let _ = gone.await;
        });
        guard
    }

    /// The next event; never where nothing is left to come. Cancelling it loses none.
    pub(super) async fn next(&mut self) -> Event {
        match self.0.next().await {
            Some(event) => event,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_guards_event_comes_with_its_holders_end_however_that_comes() {
        let mut awaited = Awaited::default();
        let guard = awaited.guard(Event::ClientsGone);
        assert_eq!(awaited.next().now_or_never(), None);
        let panics = tokio::spawn(async move {
            let _guard = guard;
            panic!("expected in this test");
        });
        assert_eq!(awaited.next().await, Event::ClientsGone);
        assert!(panics.await.is_err());
        assert_eq!(awaited.next().now_or_never(), None, "once");
    }
}
