//! The Kubernetes source of snapshots: the Nodes that carry a label, on the ports of a `ConfigMap`.
//!
//! ```text
//!  API server --watches--> Index --> Snapshot --> watch readers
//!                  ^          \----> problems --> log, Events
//!                disk <--------/
//! ```
//! A snapshot never waits for the API server: without it the last one stays, over a restart too.

mod agent_ports;
mod changes;
mod claims;
mod client_ranges;
mod cluster_addresses;
pub(super) mod debouncer;
mod following;
mod health;
mod index;
mod judged_nodes;
mod judgement;
mod listing;
mod node;
mod nodes;
mod pod_ranges;
mod ports;
mod ports_config;
mod problem_report;
mod rehearsal;
mod saved;
mod selector;
#[cfg(test)]
pub(super) mod testing;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use kube::Api;
use prometheus_client::metrics::gauge::Gauge;
use time::OffsetDateTime;
use tokio::sync::watch as latest;
use tokio_util::sync::CancellationToken;

pub(super) use self::node::usable_addresses;
pub use self::{
    agent_ports::{AgentPorts, AgentPortsOptions},
    health::{Origin, SourceHealth, WatchHealth},
    judgement::NodeProblem,
    listing::{Listing, NodePlace},
    ports::{BadValues, PortsProblem},
    problem_report::ClusterProblem,
    rehearsal::Rehearsal,
    selector::{InvalidNodeSelector, NodeSelector},
};
use self::{
    cluster_addresses::{Follower, Known},
    following::{Heard, SourceState, instant_of},
    index::{Index, Rules},
    problem_report::EventReporter,
    saved::{Saved, SavedFile},
};
use super::{
    ApiServerAddresses, ObjectName,
    events::Events,
    watch::{Scope, Watcher, follow},
};
use crate::{
    model::{AddressRanges, NodeName, NodeNetworks, PortSet, Snapshot, SnapshotReader},
    observability::metrics::to_gauge,
};

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
    /// Told of problems.
    pub events: Events,
    /// Whether this server writes Events about problems; one of all servers does.
    pub leading: latest::Receiver<bool>,
    /// Shows how many Nodes are not tunnelled.
    pub cloud_nodes: Gauge,
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
    state: SourceState,
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
            cloud_nodes,
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
        let mut clients = Arc::<AddressRanges>::default();
        if saved.is_some() {
            let now = OffsetDateTime::now_utc();
            let view = index.view(&*sessions.name, now);
            (snapshot, look_at) = (view.snapshot, instant_of(view.next_change, now));
            clients = view.clients;
            cloud_nodes.set(to_gauge(view.cloud_nodes));
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
            state: SourceState {
                index,
                snapshots,
                clients_tx: latest::Sender::new(clients),
                health,
                listing_tx: latest::Sender::new(None),
                saved_tx: latest::Sender::new(None),
                reporter: EventReporter::new(events),
                leading: false,
                has_session: sessions.name,
                asked_cluster: false,
                look_at,
                cloud_nodes,
            },
            saved,
        };
        Ok((source, reader, health_reader))
    }

    /// Follows every Node and what is spoken on the ports; `None` while this server does not lead, or does not
    /// know.
    pub fn listings(&self) -> latest::Receiver<Option<Arc<Listing>>> {
        self.state.listing_tx.subscribe()
    }

    /// Where the cluster's own clients come from: the Nodes that are not tunnelled, and their pods.
    pub fn clients(&self) -> latest::Receiver<Arc<AddressRanges>> {
        self.state.clients_tx.subscribe()
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
        let nodes = follow(Api::all(client.clone()), &Scope::All, Watcher::Server);
        let config = follow(
            Api::namespaced(client, &namespace),
            &Scope::Named(name),
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

#[cfg(test)]
mod tests;
