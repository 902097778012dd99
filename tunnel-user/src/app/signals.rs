//! SIGTERM and SIGINT: the first asks for a graceful stop, the second ends it.

use std::{convert::Infallible, time::Duration};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How far this process is asked to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Take nothing new, finish what is there.
    pub(super) graceful: CancellationToken,
    /// Finish at once.
    pub(super) abort: CancellationToken,
}

impl Stop {
    /// Resolves some time after an abort.
    pub(super) async fn aborted_for(&self, time: Duration) {
        self.abort.cancelled().await;
        tokio::time::sleep(time).await;
    }
}

/// Waits for signals.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Turns signals into stops, for as long as it is polled.
    pub(super) async fn run(mut self, stop: Stop) -> Infallible {
        self.next().await;
        tracing::info!("stopping: open connections may finish, a second signal ends them");
        stop.graceful.cancel();
        self.next().await;
        tracing::warn!("stopping at once");
        stop.abort.cancel();
        std::future::pending().await
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
