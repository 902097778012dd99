//! Yurt-Tunnel's iptables rules on this machine: told once, shown by `culvert status`, and kept out of the redirect's
//! way.
//!
//! They lead by port alone, whatever the address: also what is sent to an address that stands for a node.

use std::{io, time::Duration};

use tokio::{sync::watch, task::block_in_place, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    model::Family,
    redirect::LocalRanges,
    yurt_tunnel::{self, Leftover},
};

/// While there are some: Yurt-Tunnel's server looks after them once a minute.
const LOOK: Duration = Duration::from_secs(30);
/// While there are none: in a big cluster the table that they would be in has a hundred thousand rules of others.
const SELDOM: Duration = Duration::from_mins(10);

/// The rules, as they were last seen.
pub(super) struct YurtTunnelRules {
    found_tx: watch::Sender<Vec<Leftover>>,
}

impl YurtTunnelRules {
    /// Looks for them.
    pub(super) fn look() -> Self {
        let found_tx = watch::Sender::default();
        let rules = Self { found_tx };
        rules.take(block_in_place(yurt_tunnel::find));
        rules
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Vec<Leftover>> {
        self.found_tx.subscribe()
    }

    /// The ranges that connects arrive by although the rules are there: those of other families, and what pods send,
    /// which the rules do not see.
    pub(super) fn leave(&self, mut ranges: LocalRanges) -> LocalRanges {
        let found = self.found_tx.borrow();
        let catches = |family| {
            found
                .iter()
                .any(|one| one.family == family && one.catches())
        };
        let (host, v6) = (catches(Family::V4), catches(Family::V6));
        if (host && ranges.host.is_some()) || (v6 && ranges.v6.is_some()) {
            tracing::warn!(
                "Yurt-Tunnel's iptables rules would lead astray what is sent to addresses that stand for nodes: connects \
                 are noted by their 4-tuples until this server is started without the rules"
            );
        }
        ranges.host = ranges.host.filter(|_| !host);
        ranges.v6 = ranges.v6.filter(|_| !v6);
        ranges
    }

    /// Follows them until `end`.
    pub(super) async fn follow(self, end: CancellationToken) {
        loop {
            let is_clean = self.found_tx.borrow().is_empty();
            let pause = if is_clean { SELDOM } else { LOOK };
            tokio::select! {
                () = sleep(pause) => self.take(block_in_place(yurt_tunnel::find)),
                () = end.cancelled() => return,
            }
        }
    }

    fn take(&self, found: io::Result<Vec<Leftover>>) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "cannot see whether Yurt-Tunnel has left iptables rules");
                return;
            }
        };
        let is_news = self.found_tx.send_if_modified(|known| {
            let is_news = *known != found;
            known.clone_from(&found);
            is_news
        });
        if is_news {
            tell(&found);
        }
    }
}

fn tell(found: &[Leftover]) {
    if found.is_empty() {
        tracing::info!("Yurt-Tunnel's iptables rules are gone");
        return;
    }
    let chains: Vec<_> = found.iter().map(ToString::to_string).collect();
    tracing::warn!(
        chains = chains.join("; "),
        "Yurt-Tunnel's iptables rules are on this machine: what is not captured goes to its server, or nowhere if that is \
         gone. `culvert migrate clean` removes them",
    );
}
