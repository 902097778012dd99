//! The end of a server: what is under way finishes first, and each step waits for the one before.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Server;
use crate::{app::signals::Stop, redirect::addresses::local_route};

/// The least that agents get to take the last bytes, and the last words.
const SESSIONS_END: Duration = Duration::from_secs(7);

/// Why the server stops taking clients.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A successor has its sockets, and its gate.
    HandedOver,
    /// It was told to.
    Stopped,
}

/// The ends of a server's tasks, in the order in which they come.
#[derive(Default)]
pub(super) struct ShutdownTokens {
    /// Accept no more clients.
    pub(super) clients: CancellationToken,
    /// A successor accepts them.
    pub(super) handed_over: CancellationToken,
    /// Reset the clients that are left.
    pub(super) abort_clients: CancellationToken,
    /// The last client has gone.
    pub(super) clients_gone: CancellationToken,
    /// End every session.
    pub(super) sessions: CancellationToken,
    /// The last session has ended.
    pub(super) sessions_gone: CancellationToken,
    /// Stop answering on the meta port.
    pub(super) meta: CancellationToken,
    /// End everything else.
    pub(super) everything: CancellationToken,
}

impl Server {
    /// Finishes what is there, within the time for draining, and ends.
    pub(super) async fn shut_down(self, outcome: Option<&Outcome>, stop: &Stop) {
        let drained_by = Instant::now() + self.args.session.drain_timeout;
        self.clients.not_ready("stopping");
        // The tables stay as they are: sessions that end now say nothing of their nodes.
        self.in_charge.send_replace(false);
        let sockets = if outcome == Some(&Outcome::HandedOver) {
            // A successor that dies must leave no listening socket behind: the kernel would go on
            // redirecting to it. And one that lives must not share its callers with this server.
            self.sockets.leave_service_addresses();
            drop(self.in_charge);
            self.tokens.handed_over.cancel();
            self.tokens.meta.cancel();
            None
        } else {
            if let Err(error) = self.redirect.lock().close_gate() {
                tracing::warn!(%error, "cannot close the gate");
            }
            Some(self.sockets)
        };
        // Should the successor die, the next server need not wait for this one.
        self.redirect.lock().release();
        self.tokens.let_clients_finish(drained_by, stop).await;
        self.tokens.let_sessions_finish(drained_by, stop).await;
        if self.args.kubernetes.cluster.in_a_pod() && outcome == Some(&Outcome::HandedOver) {
            // A container that ends before its pod is started again, and would take it all back.
            tracing::info!("nothing is left to carry: waiting for the end of this pod");
            stop.graceful.cancelled().await;
        }
        self.tokens.meta.cancel();
        self.tokens.everything.cancel();
        self.tasks.finished().await;
        if let Some(sockets) = sockets {
            sockets.remove_service_addresses().await;
            local_route::remove_all().await;
        }
        tracing::info!("stopped");
    }
}

impl ShutdownTokens {
    async fn let_clients_finish(&self, drained_by: Instant, stop: &Stop) {
        self.clients.cancel();
        tokio::select! {
            () = self.clients_gone.cancelled() => {}
            () = sleep_until(drained_by) => {
                tracing::warn!("connections outlived the drain: resetting them");
            }
            () = stop.abort.cancelled() => {}
        }
        self.abort_clients.cancel();
        self.clients_gone.cancelled().await;
    }

    async fn let_sessions_finish(&self, drained_by: Instant, stop: &Stop) {
        self.sessions.cancel();
        tokio::select! {
            () = self.sessions_gone.cancelled() => {}
            () = sleep_until(drained_by.max(Instant::now() + SESSIONS_END)) => {
                tracing::info!("some agents did not take the end of their session");
            }
            () = stop.abort.cancelled() => {}
        }
    }
}
