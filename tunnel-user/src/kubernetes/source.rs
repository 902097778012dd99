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
mod finding;
mod health;
mod index;
mod node;
mod ports;
mod ports_config;
mod publication;
mod saved;
mod selector;
#[cfg(test)]
mod testing;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

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
    node::NodeProblem,
    ports::{BadValues, PortsProblem},
    selector::{InvalidNodeSelector, NodeSelector},
};
use self::{
    changes::Changes,
    finding::Teller,
    index::{Index, Rules, View},
    node::NodeObject,
    publication::Publication,
    saved::{FRESH, Saved, SavedFile},
};
use super::{
    ObjectName,
    events::Events,
    watch::{News, Watcher, Which, follow},
};
use crate::model::{PortSet, Snapshot, SnapshotReader, SnapshotWriter};

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
    /// The API server's own addresses, which no node may claim.
    pub api_server: Vec<IpAddr>,
    /// The directory in which what is known of the cluster is kept.
    pub state_dir: PathBuf,
    /// Told of findings.
    pub events: Events,
    /// Whether this server writes Events about findings; one of all servers does.
    pub leading: latest::Receiver<bool>,
}

/// Follows the cluster.
///
/// Needs `list` and `watch` of `nodes`, and of the one `ConfigMap`.
pub struct Source {
    client: kube::Client,
    ports_config: ObjectName,
    file: SavedFile,
    /// What the file holds.
    saved: Option<Arc<Saved>>,
    leading: latest::Receiver<bool>,
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
            api_server,
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
            api_server,
        };
        let (nodes, config) = saved.as_deref().cloned().map(Saved::into_parts).unzip();
        let index = Index::new(rules, nodes.unwrap_or_default(), config.flatten());
        let snapshot = match &saved {
            Some(_) => index.view().snapshot,
            None => Snapshot::default(),
        };
        let (snapshots, reader) = latest::channel(Arc::new(snapshot));
        let (health, health_reader) = latest::channel(SourceHealth::starting(saved.as_deref()));
        let source = Self {
            client,
            ports_config,
            file,
            leading,
            state: State {
                index,
                snapshots,
                health,
                saved_tx: latest::Sender::new(None),
                teller: Teller::new(events),
                leading: false,
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
            state,
        } = self;
        let nodes = follow(Api::all(client.clone()), &Which::All, Watcher::Server);
        let config = follow(
            Api::namespaced(client, &namespace),
            &Which::Named(name),
            Watcher::Server,
        );
        let keeping = file.keep(saved, state.saved_tx.subscribe(), in_service);
        tokio::join!(state.run(nodes, config, leading, shutdown), keeping);
    }
}

impl State {
    async fn run(
        mut self,
        mut nodes: BoxStream<'static, News<NodeObject>>,
        mut config: BoxStream<'static, News<ConfigMap>>,
        mut leading: latest::Receiver<bool>,
        shutdown: CancellationToken,
    ) {
        let mut publication = Publication::default();
        let mut fresh = interval(FRESH);
        loop {
            self.lead(*leading.borrow_and_update());
            let changed = tokio::select! {
                Some(news) = nodes.next() => self.hear_nodes(news),
                Some(news) = config.next() => self.hear_config(news),
                Ok(()) = leading.changed() => false,
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
        self.index.heard_nodes() && (self.index.heard_config() || config_is_lost())
    }

    fn publish(&mut self) {
        let View {
            snapshot,
            mut findings,
        } = self.index.view();
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
        self.save(OffsetDateTime::now_utc());
    }

    /// In a quiet cluster nothing is published for weeks, and yet what is known is not that old.
    fn save_if_confirmed(&self) {
        let now = OffsetDateTime::now_utc();
        if self.health.borrow().confirmed_at(now) == Some(now) {
            self.save(now);
        }
    }

    fn save(&self, now: OffsetDateTime) {
        let saved = Saved::new(self.index.to_save(), now);
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

#[cfg(test)]
mod tests;
