//! Keeps the redirect leading to an address that this machine has.
//!
//! Addresses come late, move to other interfaces, and go: the programs would send clients to where nobody is. The new
//! socket listens before the gate leads to it, and whoever is still on the way to the old one is accepted there.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::client_sockets::ClientSockets;
use crate::{
    app::node_table::SharedRedirect,
    observability::readiness::Condition,
    redirect::{Clients, Scheme, addresses::Surroundings},
    wait::{changed, wait_for},
};

/// The pause after an address that could not be had: another program may be about to let go of it.
const TRY_AGAIN: Duration = Duration::from_secs(1);

const NO_ADDRESS: &str = "this machine has no address but loopback, which pods cannot be redirected to: give it one, name \
                          one with --redirect-address, let pods use --pod-ranges, or serve this machine alone with \
                          --clients host";

/// Follows this machine's addresses.
pub(super) struct Renumbering {
    pub(super) surroundings: watch::Receiver<Arc<Surroundings>>,
    pub(super) sockets: ClientSockets,
    pub(super) redirect: SharedRedirect,
    pub(super) clients: Clients,
    /// Whether the gate is this server's to lead anywhere.
    pub(super) in_charge: watch::Receiver<bool>,
    pub(super) condition: Condition,
}

impl Renumbering {
    /// Follows until `end`.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let _ = end.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        loop {
            wait_for(&mut self.in_charge, |in_charge| *in_charge).await;
            let surroundings = Arc::clone(&self.surroundings.borrow_and_update());
            let followed = self.renumber(&surroundings).await;
            let told = followed.as_ref().err().map(|error| format!("{error:#}"));
            match &told {
                Some(reason) => self.cannot(reason),
                None => self.judge(),
            }
            tokio::select! {
                () = changed(&mut self.surroundings) => {}
                () = changed(&mut self.in_charge) => {}
                () = sleep(TRY_AGAIN), if told.is_some() => {}
            }
        }
    }

    async fn renumber(&self, surroundings: &Surroundings) -> anyhow::Result<()> {
        self.sockets.follow(surroundings).await?;
        let mut redirect = self.redirect.lock();
        // The gate is closed, or opened by another, only after this.
        if !*self.in_charge.borrow() {
            return Ok(());
        }
        let moved = self
            .sockets
            .with_listeners(|listeners| redirect.move_gate(listeners))?;
        if moved {
            let now = self.sockets.addresses();
            tracing::info!(
                ?now,
                "this machine's addresses changed: redirected connects arrive elsewhere"
            );
        }
        Ok(())
    }

    fn cannot(&self, reason: &str) {
        tracing::warn!(reason, "cannot follow this machine's addresses");
        self.condition.not_ready(reason);
    }

    /// Loopback serves pods where ranges do, and this machine's own processes in any case.
    fn judge(&self) {
        let addresses = self.sockets.addresses();
        let only_loopback = addresses.iter().all(|address| address.ip().is_loopback());
        let schemes = self.redirect.lock().schemes();
        let pods_need_more = schemes.is_ok_and(|schemes| schemes.pods == Scheme::Tuple);
        if self.clients == Clients::All && only_loopback && pods_need_more {
            self.condition.not_ready(NO_ADDRESS);
        } else {
            self.condition.ready();
        }
    }
}
