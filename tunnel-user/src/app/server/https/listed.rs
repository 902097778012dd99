//! The listening sockets of the ports that the cluster lists as HTTPS: opened and closed as the list changes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::TcpListener,
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::HttpsSockets;
use crate::{
    bind,
    frontend::https::{HttpsListening, HttpsSocket},
    model::{HttpsPorts, HttpsTarget, SnapshotReader, TunnelPort},
    wait::changed,
};

/// How long after a port could not be had it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// What to change where one cannot be bound.
const SETTING: &str = "the ConfigMap's https-proxy-ports: the last four digits count";

/// Keeps the sockets those of the listed ports.
pub(super) struct ListedPorts {
    sockets: HttpsSockets,
    snapshots: SnapshotReader,
    /// Why listed ports have no socket, as it was told last.
    told: BTreeMap<TunnelPort, String>,
}

impl ListedPorts {
    pub(super) fn new(sockets: HttpsSockets, snapshots: SnapshotReader) -> Self {
        Self {
            sockets,
            snapshots,
            told: BTreeMap::new(),
        }
    }

    /// Follows the list until `end`, and then closes every socket once nobody accepts from it any more.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let following = async {
            loop {
                if self.open() {
                    changed(&mut self.snapshots).await;
                    continue;
                }
                tokio::select! {
                    () = changed(&mut self.snapshots) => {}
                    // Whoever has the port may be gone by then.
                    () = sleep(TRY_AGAIN) => {}
                }
            }
        };
        end.run_until_cancelled(following).await;
        let listening = &self.sockets.0.listening;
        listening.closed().await;
        listening.send_replace(HttpsListening::new());
    }

    /// Opens and closes what is to be; false if a port cannot be had at present.
    pub(super) fn open(&mut self) -> bool {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let ports = HttpsPorts::of(snapshot.https_ports(), &self.sockets.0.own);
        let before = self.sockets.0.listening.borrow().clone();
        let mut now = before.clone();
        now.retain(|target, _| match target {
            HttpsTarget::Kubelet => true,
            HttpsTarget::Port(port) => ports.listening.contains_key(port),
        });
        let mut causes = self.add(&ports.listening, &mut now);
        if before.keys().ne(now.keys()) {
            self.sockets.0.listening.send_replace(now);
        }
        let is_whole = causes.is_empty();
        let left_out = ports.left_out.into_iter();
        causes.extend(left_out.map(|(port, why)| (port, why.to_string())));
        self.tell(causes);
        is_whole
    }

    /// Opens what is missing; returns why some cannot be had.
    fn add(
        &self,
        ports: &BTreeMap<TunnelPort, TunnelPort>,
        sockets: &mut HttpsListening,
    ) -> BTreeMap<TunnelPort, String> {
        let mut causes = BTreeMap::new();
        // Those of a predecessor that are not needed are closed with this.
        let mut offered = std::mem::take(&mut *self.sockets.offered());
        for (port, at) in ports {
            let Entry::Vacant(place) = sockets.entry(HttpsTarget::Port(*port)) else {
                continue;
            };
            match self.socket(*at, &mut offered) {
                Ok(socket) => {
                    place.insert(HttpsSocket(Arc::new(socket)));
                    tracing::info!(%port, listening = %at, "listening for HTTPS clients of a port of the nodes");
                }
                Err(error) => drop(causes.insert(*port, format!("{error:#}"))),
            }
        }
        causes
    }

    /// A predecessor's, or one of its own.
    fn socket(
        &self,
        at: TunnelPort,
        offered: &mut Vec<TcpListener>,
    ) -> anyhow::Result<TcpListener> {
        let is_there = |socket: &TcpListener| {
            socket
                .local_addr()
                .is_ok_and(|address| address.port() == at.number())
        };
        match offered.iter().position(is_there) {
            Some(index) => Ok(offered.swap_remove(index)),
            None => bind::listen_on(self.sockets.0.ip, at.number(), SETTING),
        }
    }

    /// Each cause once.
    fn tell(&mut self, causes: BTreeMap<TunnelPort, String>) {
        for (port, error) in &causes {
            if self.told.get(port) != Some(error) {
                tracing::error!(
                    %port, error,
                    "HTTPS clients of this port of the nodes cannot be received",
                );
            }
        }
        self.told = causes;
    }
}

#[cfg(test)]
mod tests;
