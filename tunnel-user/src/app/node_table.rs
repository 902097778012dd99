//! Keeps the kernel's tables equal to what the snapshot, this machine's addresses and the sessions
//! say.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::OfflineNodes,
    model::{AddressConflict, GatePolicy, NodeName, SnapshotReader},
    observability::metrics::ServerMetrics,
    redirect::{ApplyError, Excluded, Redirect, Standing, Table},
    tunnel::server::Sessions,
};

/// A table that could not be applied is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);

/// The redirect, shared by who writes its tables and who reads its state.
#[derive(Clone)]
pub(super) struct SharedRedirect(Arc<Mutex<Redirect>>);

/// Follows whatever the tables depend on.
pub(super) struct NodeTable {
    pub(super) redirect: SharedRedirect,
    pub(super) snapshots: SnapshotReader,
    pub(super) own_addresses: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    pub(super) sessions: Sessions,
    pub(super) offline_nodes: OfflineNodes,
    pub(super) default_policy: GatePolicy,
    pub(super) metrics: ServerMetrics,
    pub(super) told: Told,
}

/// What the log has been told already: each thing once, until it is over.
#[derive(Default)]
pub(super) struct Told {
    excluded: BTreeSet<Excluded>,
    conflicts: Vec<AddressConflict>,
}

impl SharedRedirect {
    pub(super) fn new(redirect: Redirect) -> Self {
        Self(Arc::new(Mutex::new(redirect)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Redirect> {
        // Its truth is in the kernel, which no panic here has changed half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeTable {
    /// Brings the kernel's tables up to date.
    pub(super) fn apply(&mut self) -> Result<(), ApplyError> {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let own = Arc::clone(&self.own_addresses.borrow_and_update());
        let standing = |node: &NodeName| self.standing(node);
        let (table, excluded) = Table::new(&snapshot, &own, self.default_policy, standing);
        self.told.tell(excluded, snapshot.conflicts());
        self.metrics.nodes.set(gauge(snapshot.nodes().len()));
        let changes = self.redirect.lock().apply(&table)?;
        self.metrics.redirect_entries.set(gauge(table.addresses()));
        tracing::debug!(
            ?changes,
            addresses = table.addresses(),
            "applied the table of nodes"
        );
        Ok(())
    }

    /// Follows until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut sessions = self.sessions.changes();
        let mut retry = None;
        loop {
            let retrying = async {
                match retry {
                    Some(()) => tokio::time::sleep(RETRY).await,
                    None => std::future::pending().await,
                }
            };
            let open = tokio::select! {
                changed = self.snapshots.changed() => changed.is_ok(),
                changed = self.own_addresses.changed() => changed.is_ok(),
                changed = sessions.changed() => changed.is_ok(),
                () = retrying => true,
                () = shutdown.cancelled() => return,
            };
            if !open {
                return;
            }
            sessions.borrow_and_update();
            self.metrics
                .sessions
                .set(gauge(self.sessions.reports().len()));
            // A big table takes some milliseconds of system calls.
            let applied = tokio::task::block_in_place(|| self.apply());
            retry = applied.is_err().then_some(());
            if let Err(error) = applied {
                let error = format!("{:#}", anyhow::anyhow!(error));
                tracing::error!(error, "cannot apply the table of nodes, trying again");
            }
        }
    }

    fn standing(&self, node: &NodeName) -> Standing {
        match self.offline_nodes {
            OfflineNodes::Bypass if !self.sessions.has(node) => Standing::Bypass,
            OfflineNodes::Refuse if !self.sessions.has(node) => Standing::Refuse,
            OfflineNodes::Reset | OfflineNodes::Bypass | OfflineNodes::Refuse => Standing::Capture,
        }
    }
}

impl Told {
    fn tell(&mut self, excluded: Vec<Excluded>, conflicts: &[AddressConflict]) {
        let excluded: BTreeSet<_> = excluded.into_iter().collect();
        for Excluded {
            address,
            node,
            reason,
        } in excluded.difference(&self.excluded)
        {
            tracing::warn!(%node, %address, %reason, "an address of the node is not captured");
        }
        for AddressConflict { address, nodes } in conflicts {
            if !self
                .conflicts
                .iter()
                .any(|told| told.address == *address && told.nodes == *nodes)
            {
                let nodes: Vec<_> = nodes.iter().map(NodeName::as_str).collect();
                tracing::warn!(%address, ?nodes, "several nodes claim one address: none is captured by it");
            }
        }
        self.excluded = excluded;
        self.conflicts = conflicts.to_vec();
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
