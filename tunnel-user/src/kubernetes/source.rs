//! The Kubernetes source of snapshots: the Nodes that carry a label, on the ports of a `ConfigMap`.
//!
//! ```text
//!  API server --watches--> Index --> Snapshot --> watch readers
//!                  ^          \----> findings --> log, Events
//!                disk <--------/
//! ```
//! A snapshot never waits for the API server: without it the last one stays, over a restart too.

mod agent_ports;
mod changes;
mod claims;
mod cluster_addresses;
mod finding;
mod health;
mod index;
mod judgement;
mod node;
mod pod_ranges;
mod ports;
mod ports_config;
mod publication;
mod saved;
mod selector;
#[cfg(test)]
mod testing;

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, runtime::watcher::Event};
use time::OffsetDateTime;
use tokio::{
    sync::watch as latest,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub(super) use self::node::usable_addresses;
pub use self::{
    agent_ports::{AgentPorts, AgentPortsOptions},
    finding::Finding,
    health::{Origin, SourceHealth, WatchHealth},
    judgement::NodeProblem,
    ports::{BadValues, PortsProblem},
    selector::{InvalidNodeSelector, NodeSelector},
};
use self::{
    changes::Changes,
    cluster_addresses::{Follower, Known},
    finding::Teller,
    index::{Index, Rules, View},
    node::NodeObject,
    publication::Publication,
    saved::{FRESH, Saved, SavedFile},
};
use super::{
    ApiServerAddresses, ObjectName,
    events::Events,
    watch::{News, Watcher, Which, follow},
};
use crate::{
    model::{NodeName, NodeNetworks, PortSet, Snapshot, SnapshotReader, SnapshotWriter},
    moment::until,
};

/// Sessions come and go in crowds, and a list of all nodes is walked for a change of who has an
/// address.
const SESSIONS_SETTLE: Duration = Duration::from_secs(1);

/// What the source needs.
pub struct SourceOptions {
    /// The API server; it need not be there.
    pub client: kube::Client,
    /// A Node that matches any of them is tunnelled.
    pub selectors: Vec<NodeSelector>,
    /// The `ConfigMap` of the ports.
    pub ports_config: ObjectName,
    /// Ports that are tunnelled whatever it says, besides the kubelet's two.
    pub extra_ports: PortSet,
    /// The server's own ports, which are never tunnelled.
    pub reserved_ports: PortSet,
    /// Where nodes may have addresses.
    pub node_networks: NodeNetworks,
    /// The ports besides 10250 that a Node's kubelet may have.
    pub kubelet_ports: PortSet,
    /// The addresses at which this server reaches its API server, once it is known; no node may
    /// claim them.
    pub api_server: ApiServerAddresses,
    /// Whose agents are here.
    pub sessions: LiveSessions,
    /// The directory in which what is known of the cluster is kept.
    pub state_dir: PathBuf,
    /// Told of findings.
    pub events: Events,
    /// Whether this server writes Events about findings; one of all servers does.
    pub leading: latest::Receiver<bool>,
}

/// Whether the agent of a node has a session, with a certificate that names this address.
pub type NameSession = Arc<dyn Fn(&NodeName, IpAddr) -> bool + Send + Sync>;

/// Which agents have a session, with a certificate that names which address.
#[derive(Clone)]
pub struct LiveSessions {
    /// Whether the node's agent has one that names the address.
    pub name: NameSession,
    /// Ticks whenever that may have changed.
    pub changes: latest::Receiver<u64>,
}

/// Follows the cluster.
///
/// Needs `list` and `watch` of `nodes`, `services` and the one `ConfigMap`, and of the
/// `endpointslices` of the API server.
pub struct Source {
    client: kube::Client,
    ports_config: ObjectName,
    file: SavedFile,
    /// What the file holds.
    saved: Option<Arc<Saved>>,
    leading: latest::Receiver<bool>,
    cluster: (Follower, latest::Receiver<Known>),
    session_changes: latest::Receiver<u64>,
    state: State,
}

/// What is known, and who is told.
struct State {
    index: Index,
    snapshots: SnapshotWriter,
    health: latest::Sender<SourceHealth>,
    /// source --what is known--> disk
    saved_tx: latest::Sender<Option<Arc<Saved>>>,
    teller: Teller,
    leading: bool,
    has_session: NameSession,
    /// Whether the cluster's own addresses have been asked for.
    asked_cluster: bool,
    /// When to look again at who has which address although no object has changed.
    look_at: Option<Instant>,
}

impl Source {
    /// Starts with what was saved, or with an empty snapshot; asks nothing of the API server.
    pub fn new(
        options: SourceOptions,
    ) -> anyhow::Result<(Self, SnapshotReader, latest::Receiver<SourceHealth>)> {
        let SourceOptions {
            client,
            selectors,
            ports_config,
            extra_ports,
            reserved_ports,
            node_networks,
            kubelet_ports,
            api_server,
            sessions,
            state_dir,
            events,
            leading,
        } = options;
        let file = SavedFile::open(&state_dir)?;
        let saved = file.read().map(Arc::new);
        let rules = Rules {
            selectors,
            ports_config: ports_config.clone(),
            ports: extra_ports,
            reserved: reserved_ports,
            node_networks,
            kubelet_ports,
        };
        let cluster = saved.as_ref().map(|saved| saved.cluster.clone());
        let cluster = Follower::new(client.clone(), api_server, cluster.unwrap_or_default());
        let mut index = Index::new(rules, saved.as_deref().cloned());
        let (mut snapshot, mut look_at) = (Snapshot::default(), None);
        if saved.is_some() {
            let now = OffsetDateTime::now_utc();
            let view = index.view(&*sessions.name, now);
            (snapshot, look_at) = (view.snapshot, instant_of(view.next_change, now));
        }
        let (snapshots, reader) = latest::channel(Arc::new(snapshot));
        let (health, health_reader) = latest::channel(SourceHealth::starting(saved.as_deref()));
        let source = Self {
            client,
            ports_config,
            file,
            leading,
            cluster,
            session_changes: sessions.changes,
            state: State {
                index,
                snapshots,
                health,
                saved_tx: latest::Sender::new(None),
                teller: Teller::new(events),
                leading: false,
                has_session: sessions.name,
                asked_cluster: false,
                look_at,
            },
            saved,
        };
        Ok((source, reader, health_reader))
    }

    /// Follows the cluster until `shutdown`; keeps what is known on disk until `in_service` ends,
    /// when that is a successor's business.
    pub async fn run(self, in_service: CancellationToken, shutdown: CancellationToken) {
        let Self {
            client,
            ports_config: ObjectName { namespace, name },
            file,
            saved,
            leading,
            cluster: (follower, cluster),
            session_changes,
            state,
        } = self;
        let nodes = follow(Api::all(client.clone()), &Which::All, Watcher::Server);
        let config = follow(
            Api::namespaced(client, &namespace),
            &Which::Named(name),
            Watcher::Server,
        );
        let heard = Heard {
            nodes,
            config,
            cluster,
            session_changes,
            leading,
        };
        let keeping = file.keep(saved, state.saved_tx.subscribe(), in_service);
        let following = follower.run(shutdown.clone());
        tokio::join!(state.run(heard, shutdown), following, keeping);
    }
}

/// Whatever the source hears of.
struct Heard {
    nodes: BoxStream<'static, News<NodeObject>>,
    config: BoxStream<'static, News<ConfigMap>>,
    cluster: latest::Receiver<Known>,
    session_changes: latest::Receiver<u64>,
    leading: latest::Receiver<bool>,
}

impl State {
    async fn run(mut self, heard: Heard, shutdown: CancellationToken) {
        let Heard {
            mut nodes,
            mut config,
            mut cluster,
            mut session_changes,
            mut leading,
        } = heard;
        let mut publication = Publication::default();
        let mut fresh = interval(FRESH);
        loop {
            self.lead(*leading.borrow_and_update());
            let changed = tokio::select! {
                Some(news) = nodes.next() => self.hear_nodes(news),
                Some(news) = config.next() => self.hear_config(news),
                Ok(()) = cluster.changed() => self.hear_cluster(&cluster.borrow_and_update()),
                Ok(()) = leading.changed() => false,
                Ok(()) = session_changes.changed(), if self.index.shares_addresses() => {
                    self.look_by(Instant::now() + SESSIONS_SETTLE);
                    false
                }
                () = until(self.look_at) => {
                    self.look_at = None;
                    true
                }
                () = publication.due() => {
                    self.publish();
                    publication.published(Instant::now());
                    false
                }
                _ = fresh.tick() => {
                    self.save_if_confirmed();
                    false
                }
                () = shutdown.cancelled() => return,
            };
            if changed && self.may_publish() {
                publication.ask(Instant::now());
            }
        }
    }

    fn hear_nodes(&mut self, news: News<NodeObject>) -> bool {
        self.note("Nodes", &news, |health| &mut health.nodes);
        match news {
            News::Event(event) => self.index.hear_node(event),
            // Who is to blame for an unreadable ConfigMap is seen otherwise now.
            News::Lost(_) | News::Back => self.health.borrow().ports_config.is_lost(),
        }
    }

    fn hear_config(&mut self, news: News<ConfigMap>) -> bool {
        self.note("the ports' ConfigMap", &news, |health| {
            &mut health.ports_config
        });
        match news {
            News::Event(event) => self.hear_config_event(event),
            // Nodes that wait for the ports need not wait any longer.
            News::Lost(_) | News::Back => true,
        }
    }

    fn hear_cluster(&mut self, known: &Known) -> bool {
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
        self.index.hear_cluster(&known.addresses) || asked
    }

    fn look_by(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
    }

    fn hear_config_event(&mut self, event: Event<ConfigMap>) -> bool {
        let heard_before = self.index.heard_config();
        let changed = self.index.hear_config(event);
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
        news: &News<K>,
        watch: impl FnOnce(&mut SourceHealth) -> &mut WatchHealth,
    ) {
        let now = OffsetDateTime::now_utc();
        self.health.send_if_modified(|health| match news {
            // Says that a list will be asked for.
            News::Event(Event::Init) => false,
            News::Event(_) | News::Back => {
                let connected = watch(health).connected();
                if connected {
                    info!(what, "following the cluster");
                }
                connected
            }
            News::Lost(error) => {
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
            mut findings,
            next_change,
        } = self.index.view(&*self.has_session, now);
        if let Some(at) = instant_of(next_change, now) {
            self.look_by(at);
        }
        findings.extend(self.unreadable_config());
        self.snapshots.send_if_modified(|current| {
            if **current == snapshot {
                return false;
            }
            Changes::between(current, &snapshot).log();
            *current = Arc::new(snapshot);
            true
        });
        self.health.send_if_modified(|health| {
            std::mem::replace(&mut health.origin, Origin::ApiServer) != Origin::ApiServer
        });
        let ports_config = self.index.ports_config();
        self.teller.tell(findings, &ports_config, self.leading);
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
    fn unreadable_config(&self) -> Option<Finding> {
        let health = self.health.borrow();
        match &health.ports_config {
            WatchHealth::Lost { error, .. } if !health.nodes.is_lost() => Some(
                self.index
                    .ports_finding(PortsProblem::Unreadable(error.clone())),
            ),
            _ => None,
        }
    }

    fn lead(&mut self, leading: bool) {
        if leading && !self.leading {
            self.teller.tell_again(&self.index.ports_config());
        }
        self.leading = leading;
    }
}

/// A moment of the wall clock on that of timers.
fn instant_of(at: Option<OffsetDateTime>, now: OffsetDateTime) -> Option<Instant> {
    let left = (at? - now).try_into().unwrap_or(Duration::ZERO);
    Some(Instant::now() + left)
}

#[cfg(test)]
mod tests;
