//! The standalone source of snapshots: exactly the registered nodes.
//!
//! It reads `nodes/` again whenever something changes there, whoever changed it: this server's own
//! enrolment service, or `culvert node remove` in another process. Files that did not change are
//! not read again.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{State, chain, scan::Scan};
use crate::model::{
    Node, NodeChange, NodeName, NodeNetworks, PortSet, Snapshot, SnapshotReader, SnapshotWriter,
};

/// Addresses that nodes have registered with and may not have.
type Outside = BTreeSet<(NodeName, IpAddr)>;

/// The kernel may drop change notices; without one the directory is read again after this time.
const RESCAN: Duration = Duration::from_secs(30);
/// The same where the kernel gives no notices at all.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(1);

/// Publishes the registered nodes as snapshots.
pub struct Source {
    scan: Scan,
    ports: PortSet,
    node_networks: NodeNetworks,
    /// What the log was told of addresses outside of these.
    told_outside: Outside,
    snapshots: SnapshotWriter,
    /// kernel --something changed--> source; one slot, for one notice is as good as many.
    change_rx: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
}

impl Source {
    /// Reads the registrations once. Every node is reached on `ports`, and by its addresses in
    /// `node_networks`.
    pub fn new(
        state: &State,
        ports: PortSet,
        node_networks: NodeNetworks,
    ) -> anyhow::Result<(Self, SnapshotReader)> {
        let (change_tx, change_rx) = mpsc::channel(1);
        let watcher = watch(state, change_tx)
            .inspect_err(|error| {
                let directory = state.nodes.path().display();
                warn!(%directory, error = chain(error.as_ref()),
                    "the kernel does not tell of changes, reading the directory every second; \
                     raise fs.inotify.max_user_watches or max_user_instances");
            })
            .ok();
        let mut scan = Scan::new(state.nodes.clone());
        // Watch first, read then: no change falls between the two.
        scan.refresh().context("cannot read the registered nodes")?;
        let (first, told_outside) = snapshot(&scan, &ports, &node_networks);
        log_outside(&BTreeSet::new(), &told_outside);
        let (snapshots, reader) = tokio::sync::watch::channel(Arc::new(first));
        let source = Self {
            scan,
            ports,
            node_networks,
            told_outside,
            snapshots,
            change_rx,
            watcher,
        };
        Ok((source, reader))
    }

    /// Follows the directory.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let rescan = match self.watcher {
            Some(_) => RESCAN,
            None => RESCAN_UNWATCHED,
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(()) = self.change_rx.recv() => {}
                () = tokio::time::sleep(rescan) => {}
            }
            self = match tokio::task::spawn_blocking(|| self.refreshed()).await {
                Ok(source) => source,
                // The runtime is going down.
                Err(_) => return,
            };
        }
    }

    fn refreshed(mut self) -> Self {
        match self.scan.refresh() {
            Ok(_) => self.publish(),
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "cannot read the registered nodes, keeping the last state"
                );
            }
        }
        self
    }

    fn publish(&mut self) {
        let (next, outside) = snapshot(&self.scan, &self.ports, &self.node_networks);
        log_outside(&self.told_outside, &outside);
        self.told_outside = outside;
        self.snapshots.send_if_modified(|current| {
            if **current == next {
                return false;
            }
            log_changes(current, &next);
            *current = Arc::new(next);
            true
        });
    }
}

fn watch(state: &State, change_tx: mpsc::Sender<()>) -> anyhow::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let reading = event.as_ref().is_ok_and(|event| event.kind.is_access());
        if !reading {
            // A full slot already announces a change.
            let _ = change_tx.try_send(());
        }
    })?;
    watcher.watch(state.nodes.path(), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The snapshot, and what nodes have registered with that is left out of it: an address from before
/// `--node-networks` was set.
fn snapshot(scan: &Scan, ports: &PortSet, networks: &NodeNetworks) -> (Snapshot, Outside) {
    let mut outside = Outside::new();
    let mut nodes: Vec<Node> = scan
        .registrations()
        .map(super::Registration::node)
        .collect();
    for node in &mut nodes {
        let not_admitted = |address: &mut IpAddr| !networks.admit(*address);
        let addresses = node.addresses.extract_if(.., not_admitted);
        outside.extend(addresses.map(|address| (node.name.clone(), address)));
    }
    (Snapshot::new(nodes, ports.clone()), outside)
}

fn log_outside(before: &Outside, now: &Outside) {
    for (node, address) in now.difference(before) {
        warn!(%node, %address, "the node's address is in none of --node-networks: it is not captured; \
            add its network there, or enrol the node anew with another address");
    }
}

fn log_changes(old: &Snapshot, new: &Snapshot) {
    for change in new.changed_nodes(old) {
        let node = change.name();
        match change {
            NodeChange::Come(_) => info!(%node, "node registered"),
            NodeChange::Gone(_) => info!(%node, "node removed"),
            NodeChange::Changed { .. } => {}
        }
    }
    debug!(nodes = new.nodes().len(), "published a snapshot");
}

#[cfg(test)]
mod tests;
