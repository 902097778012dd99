//! What is heard of the cluster, and what follows from it: a snapshot, problems, and what is kept.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::Event;
use prometheus_client::metrics::gauge::Gauge;
use time::OffsetDateTime;
use tokio::{
    sync::watch as latest,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    ClusterProblem, NameSession, Origin, PortsProblem, SourceHealth, WatchHealth,
    changes::Changes,
    cluster_addresses::Known,
    debouncer::Debouncer,
    index::{Index, View},
    listing::Listing,
    node::NodeObject,
    problem_report::EventReporter,
    saved::{FRESH, Saved},
};
use crate::{
    kubernetes::watch::WatchEvent,
    model::{AddressRanges, SnapshotWriter},
    observability::metrics::to_gauge,
    wait::sleep_until_opt,
};

/// Sessions come and go in crowds, and a list of all nodes is walked for a change of who has an
/// address.
const SESSIONS_SETTLE: Duration = Duration::from_secs(1);

/// What is known, and who is told.
pub(super) struct SourceState {
    pub(super) index: Index,
    pub(super) snapshots: SnapshotWriter,
    /// source --where the cluster's own clients come from--> frontends
    pub(super) clients_tx: latest::Sender<Arc<AddressRanges>>,
    pub(super) health: latest::Sender<SourceHealth>,
    /// source --every Node, ports--> who writes them into the cluster
    pub(super) listing_tx: latest::Sender<Option<Arc<Listing>>>,
    /// source --what is known--> disk
    pub(super) saved_tx: latest::Sender<Option<Arc<Saved>>>,
    pub(super) reporter: EventReporter,
    pub(super) leading: bool,
    pub(super) has_session: NameSession,
    /// Whether the cluster's own addresses have been asked for.
    pub(super) asked_cluster: bool,
    /// When to look again at who has which address although no object has changed.
    pub(super) look_at: Option<Instant>,
    pub(super) cloud_nodes: Gauge,
}

/// Whatever the source hears of.
pub(super) struct Heard {
    pub(super) nodes: BoxStream<'static, WatchEvent<NodeObject>>,
    pub(super) config: BoxStream<'static, WatchEvent<ConfigMap>>,
    pub(super) cluster: latest::Receiver<Known>,
    pub(super) session_changes: latest::Receiver<u64>,
    pub(super) leading: latest::Receiver<bool>,
}

impl SourceState {
    pub(super) async fn run(mut self, heard: Heard, shutdown: CancellationToken) {
        let Heard {
            mut nodes,
            mut config,
            mut cluster,
            mut session_changes,
            mut leading,
        } = heard;
        let mut debouncer = Debouncer::default();
        let mut fresh = interval(FRESH);
        loop {
            self.lead(*leading.borrow_and_update());
            let changed = tokio::select! {
                Some(watch_event) = nodes.next() => self.hear_nodes(watch_event),
                Some(watch_event) = config.next() => self.apply_config(watch_event),
                Ok(()) = cluster.changed() => self.apply_cluster(&cluster.borrow_and_update()),
                Ok(()) = leading.changed() => false,
                Ok(()) = session_changes.changed(), if self.index.shares_addresses() => {
                    self.look_by(Instant::now() + SESSIONS_SETTLE);
                    false
                }
                () = sleep_until_opt(self.look_at) => {
                    self.look_at = None;
                    true
                }
                () = debouncer.due() => {
                    self.publish();
                    debouncer.published(Instant::now());
                    false
                }
                _ = fresh.tick() => {
                    self.save_if_confirmed();
                    false
                }
                () = shutdown.cancelled() => return,
            };
            if changed && self.may_publish() {
                debouncer.ask(Instant::now());
            }
        }
    }

    fn hear_nodes(&mut self, watch_event: WatchEvent<NodeObject>) -> bool {
        self.note("Nodes", &watch_event, |health| &mut health.nodes);
        match watch_event {
            WatchEvent::Event(event) => self.index.apply_node(event),
            // Who is to blame for an unreadable ConfigMap is seen otherwise now.
            WatchEvent::Lost(_) | WatchEvent::Back => self.health.borrow().ports_config.is_lost(),
        }
    }

    fn apply_config(&mut self, watch_event: WatchEvent<ConfigMap>) -> bool {
        self.note("the ports' ConfigMap", &watch_event, |health| {
            &mut health.ports_config
        });
        match watch_event {
            WatchEvent::Event(event) => self.hear_config_event(event),
            // Nodes that wait for the ports need not wait any longer.
            WatchEvent::Lost(_) | WatchEvent::Back => true,
        }
    }

    fn apply_cluster(&mut self, known: &Known) -> bool {
        let asked = std::mem::replace(&mut self.asked_cluster, known.asked) != known.asked;
        self.health.send_if_modified(|health| {
            let changed = health.cluster_addresses != known.trouble;
            if let (true, Some(trouble)) = (health.cluster_addresses.is_none(), &known.trouble) {
                warn!(
                    trouble,
                    "the cluster's own addresses are not followed: those known last stay out of \
                     nodes' reach"
                );
            }
            health.cluster_addresses.clone_from(&known.trouble);
            changed
        });
        self.index.apply_cluster(&known.addresses) || asked
    }

    fn look_by(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
    }

    fn hear_config_event(&mut self, event: Event<ConfigMap>) -> bool {
        let heard_before = self.index.heard_config();
        let changed = self.index.apply_config(event);
        if !heard_before && self.index.heard_config() && !self.index.has_config() {
            info!(
                "there is no ConfigMap of the ports: the kubelet's are tunnelled, and those of --ports"
            );
        }
        changed
    }

    fn note<K>(
        &self,
        what: &'static str,
        watch_event: &WatchEvent<K>,
        watch: impl FnOnce(&mut SourceHealth) -> &mut WatchHealth,
    ) {
        let now = OffsetDateTime::now_utc();
        self.health.send_if_modified(|health| match watch_event {
            // Says that a list will be asked for.
            WatchEvent::Event(Event::Init) => false,
            WatchEvent::Event(_) | WatchEvent::Back => {
                let connected = watch(health).connected();
                if connected {
                    info!(what, "following the cluster");
                }
                connected
            }
            WatchEvent::Lost(error) => {
                if watch(health).lost(error.clone(), now) {
                    warn!(
                        what,
                        error,
                        "cannot follow the cluster: its last state stays in force, trying again \
                         every few seconds"
                    );
                } else {
                    debug!(what, error, "still cannot follow the cluster");
                }
                true
            }
        });
    }

    /// Half of the state would take ports or nodes away for a moment, which the last state has.
    fn may_publish(&self) -> bool {
        let config_is_lost = || self.health.borrow().ports_config.is_lost();
        let heard = self.index.heard_nodes() && self.asked_cluster;
        heard && (self.index.heard_config() || config_is_lost())
    }

    fn publish(&mut self) {
        let now = OffsetDateTime::now_utc();
        let View {
            snapshot,
            clients,
            cloud_nodes,
            mut problems,
            next_change,
        } = self.index.view(&*self.has_session, now);
        if let Some(at) = instant_of(next_change, now) {
            self.look_by(at);
        }
        problems.extend(self.unreadable_config());
        self.cloud_nodes.set(to_gauge(cloud_nodes));
        self.snapshots.send_if_modified(|current| {
            if **current == snapshot {
                return false;
            }
            Changes::between(current, &snapshot).log();
            *current = Arc::new(snapshot);
            true
        });
        self.clients_tx.send_if_modified(|current| {
            let changed = *current != clients;
            *current = clients;
            changed
        });
        self.health.send_if_modified(|health| {
            std::mem::replace(&mut health.origin, Origin::ApiServer) != Origin::ApiServer
        });
        let ports_config = self.index.ports_config();
        self.reporter.tell(problems, &ports_config, self.leading);
        if self.leading {
            self.list();
        }
        self.save(now);
    }

    /// In a quiet cluster nothing is published for weeks, and yet what is known is not that old.
    fn save_if_confirmed(&self) {
        let now = OffsetDateTime::now_utc();
        if self.health.borrow().confirmed_at(now) == Some(now) {
            self.save(now);
        }
    }

    fn save(&self, now: OffsetDateTime) {
        let saved = self.index.to_save(now);
        self.saved_tx.send_replace(Some(Arc::new(saved)));
    }

    /// Without the API server nothing can be read, and nobody be told.
    fn unreadable_config(&self) -> Option<ClusterProblem> {
        let health = self.health.borrow();
        match &health.ports_config {
            WatchHealth::Lost { error, .. } if !health.nodes.is_lost() => Some(
                self.index
                    .ports_problem(PortsProblem::Unreadable(error.clone())),
            ),
            _ => None,
        }
    }

    fn lead(&mut self, leading: bool) {
        let led = std::mem::replace(&mut self.leading, leading);
        if leading && !led {
            self.reporter.tell_again(&self.index.ports_config());
        }
        if leading != led {
            self.list();
        }
    }

    /// The other servers need no list of all nodes.
    fn list(&self) {
        let known = self.leading && self.may_publish();
        let listing = known.then(|| Arc::new(self.index.listing()));
        self.listing_tx.send_if_modified(|current| {
            let changed = *current != listing;
            *current = listing;
            changed
        });
    }
}

/// A moment of the wall clock on that of timers.
pub(super) fn instant_of(at: Option<OffsetDateTime>, now: OffsetDateTime) -> Option<Instant> {
    let left = (at? - now).try_into().unwrap_or(Duration::ZERO);
    Some(Instant::now() + left)
}
