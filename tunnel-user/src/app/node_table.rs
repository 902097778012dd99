//! Keeps the kernel's tables equal to what the snapshot, this machine's addresses and the sessions
//! say.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::block_in_place,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::service_table::ServiceSync;
use crate::{
    model::{AddressConflict, Family, NodeName, Snapshot, SnapshotReader},
    observability::{
        chain,
        metrics::{ServerMetrics, to_gauge},
        readiness::Condition,
    },
    redirect::{
        ApplyError, Excluded, NodeMode, Redirect, Table, TableBuilder, addresses::Surroundings,
    },
    settings::OfflineNodes,
    tunnel::server::Sessions,
    wait::sleep_until_opt,
};

/// A table that could not be applied is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);

/// Sessions come and go in crowds: one table serves for all that do so within this time.
const SETTLE: Duration = Duration::from_millis(100);

/// The redirect, shared by who writes its tables and who reads its state.
#[derive(Clone)]
pub(super) struct SharedRedirect(Arc<Mutex<Redirect>>);

/// Follows whatever the tables depend on, for as long as this server is in charge of them.
pub(super) struct NodeTable {
    pub(super) redirect: SharedRedirect,
    /// Whether anything is to be captured at all.
    pub(super) captures: bool,
    pub(super) snapshots: SnapshotReader,
    pub(super) own_addresses: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    /// Where this machine's clients are, as the kernel programs have to know.
    pub(super) surroundings: watch::Receiver<Arc<Surroundings>>,
    /// Ports that lead to a node's loopback are for the server's own network namespace.
    pub(super) guards_loopback_ports: bool,
    pub(super) sessions: Sessions,
    pub(super) offline_nodes: OfflineNodes,
    /// Until then a node without a session is not taken for offline: agents are still coming along.
    pub(super) patient_until: Instant,
    pub(super) tables: TableBuilder,
    /// False while another server may write the same tables.
    pub(super) in_charge: watch::Receiver<bool>,
    /// What is captured of these does not arrive.
    pub(super) set_aside: watch::Receiver<BTreeSet<Family>>,
    /// Hears which targets of the server's own probes are captured.
    pub(super) probes: watch::Sender<Vec<SocketAddr>>,
    pub(super) applied: Condition,
    pub(super) metrics: ServerMetrics,
    pub(super) told: LogDedup,
    /// What is captured on its way to a Service.
    pub(super) services: ServiceSync,
    /// When to write them again, after a failure.
    pub(super) services_again_at: Option<Instant>,
    /// What was applied last.
    pub(super) nodes: Table,
}

/// What the log has been told already: each thing once, until it is over.
#[derive(Default)]
pub(super) struct LogDedup {
    excluded: BTreeSet<Excluded>,
    conflicts: BTreeSet<AddressConflict>,
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
        self.metrics.nodes.set(to_gauge(snapshot.nodes().len()));
        let snapshot = if self.captures {
            snapshot
        } else {
            Arc::default()
        };
        let own = Arc::clone(&self.own_addresses.borrow_and_update());
        let mut table = self.table(&snapshot, &own);
        if self.guards_loopback_ports {
            let ports = snapshot.loopback_ports().iter();
            table = table.for_own_namespace(ports.map(|port| port.number()));
        }
        for family in &*self.set_aside.borrow_and_update() {
            table.set_aside(*family);
        }
        let probes = table.add_probes();
        let excluded = self.tables.excluded().cloned().collect();
        let conflicts = snapshot.conflicts().cloned().collect();
        self.told.tell(excluded, conflicts);
        let surroundings = Arc::clone(&self.surroundings.borrow_and_update());
        let changes = {
            let mut redirect = self.redirect.lock();
            let told = redirect.set_surroundings(&surroundings.addresses, &surroundings.uplinks);
            if let Err(error) = told {
                // Nodes come first: without it only less is known of who is a stranger.
                let (addresses, uplinks) =
                    (surroundings.addresses.len(), surroundings.uplinks.len());
                tracing::warn!(%error, addresses, uplinks, "cannot tell the kernel programs of this machine's network");
            }
            redirect.apply(&table)?
        };
        self.metrics
            .redirect_entries
            .set(to_gauge(table.addresses()));
        self.applied.ready();
        self.probes.send_if_modified(|told| {
            let news = *told != probes;
            *told = probes;
            news
        });
        tracing::debug!(
            ?changes,
            addresses = table.addresses(),
            "applied the table of nodes"
        );
        self.nodes = table;
        self.apply_services();
        Ok(())
    }

    /// The same of Services alone, as nothing else has changed. Nodes are captured without it.
    fn apply_services(&mut self) {
        let applied = self.services.apply(&self.redirect, &self.nodes);
        self.services_again_at = applied.err().map(|error| {
            let error = chain(&error);
            tracing::error!(
                error,
                "cannot apply the table of Services, trying again: clients of Services may not reach nodes"
            );
            Instant::now() + RETRY
        });
    }

    /// Follows until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut sessions = self.sessions.changes();
        let mut again_at = Some(self.patient_until).filter(|_| self.minds_sessions());
        loop {
            let minds_sessions = self.minds_sessions();
            let mut services_only = false;
            tokio::select! {
                Ok(()) = self.snapshots.changed() => {}
                Ok(()) = self.own_addresses.changed() => {}
                Ok(()) = self.surroundings.changed() => {}
                Ok(()) = self.in_charge.changed() => self.redirect.lock().forget(),
                Ok(()) = self.set_aside.changed() => {}
                () = self.services.changed() => services_only = true,
                () = sleep_until_opt(self.services_again_at) => services_only = true,
                Ok(()) = sessions.changed(), if minds_sessions => sleep(SETTLE).await,
                () = sleep_until_opt(again_at) => {}
                () = shutdown.cancelled() => return,
            }
            let has_changed = self.in_charge.has_changed().unwrap_or(false);
            let in_charge = *self.in_charge.borrow_and_update();
            if has_changed || !in_charge {
                // Another server may have written.
                self.redirect.lock().forget();
            }
            if in_charge && services_only && !has_changed {
                // Whatever else is due, or has changed meanwhile, stays so.
                block_in_place(|| self.apply_services());
                continue;
            }
            sessions.borrow_and_update();
            again_at = if in_charge {
                self.apply_or_retry()
            } else {
                None
            };
        }
    }

    /// Applies; says when to do it again anyway.
    fn apply_or_retry(&mut self) -> Option<Instant> {
        // A big table takes some milliseconds of system calls.
        let Err(error) = block_in_place(|| self.apply()) else {
            let patient = self.minds_sessions() && Instant::now() < self.patient_until;
            return patient.then_some(self.patient_until);
        };
        let error = chain(&error);
        tracing::error!(error, "cannot apply the table of nodes, trying again");
        self.applied.not_ready(error);
        Some(Instant::now() + RETRY)
    }

    fn table(&mut self, snapshot: &Arc<Snapshot>, own: &Arc<BTreeSet<IpAddr>>) -> Table {
        if self.minds_sessions() {
            self.tables.forget();
        }
        let (sessions, is_early) = (&self.sessions, Instant::now() < self.patient_until);
        let offline = match self.offline_nodes {
            OfflineNodes::Reset => NodeMode::Capture,
            OfflineNodes::Bypass => NodeMode::Bypass,
            OfflineNodes::Refuse => NodeMode::Refuse,
        };
        let node_mode = |node: &NodeName| {
            if is_early || sessions.has(node) {
                NodeMode::Capture
            } else {
                offline
            }
        };
        self.tables.build(snapshot, own, node_mode)
    }

    fn minds_sessions(&self) -> bool {
        self.offline_nodes != OfflineNodes::Reset
    }
}

impl LogDedup {
    fn tell(&mut self, excluded: BTreeSet<Excluded>, conflicts: BTreeSet<AddressConflict>) {
        for Excluded {
            address,
            node,
            reason,
        } in excluded.difference(&self.excluded)
        {
            tracing::warn!(%node, %address, %reason, "an address of the node is not captured");
        }
        for AddressConflict { address, nodes } in conflicts.difference(&self.conflicts) {
            let nodes: Vec<_> = nodes.iter().map(NodeName::as_str).collect();
            tracing::warn!(%address, ?nodes, "several nodes claim one address, and none can be said to have had it first: \
                 connects to it are refused");
        }
        self.excluded = excluded;
        self.conflicts = conflicts;
    }
}
