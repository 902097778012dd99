//! What a server consists of besides its sockets and its redirect.

use std::{collections::BTreeSet, mem, net::IpAddr, sync::Arc};

use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    platform::{Platform, PlatformContext},
    shutdown_tokens::ShutdownTokens,
};
use crate::{
    app::{memory_limit, node_table::SharedRedirect, service_table::AppliedServices, tasks::Tasks},
    model::ServicesReader,
    observability::{
        metrics::{SchemeReport, ServerMetrics, to_gauge},
        readiness::Readiness,
    },
    redirect::{
        Schemes,
        addresses::{AddressWatch, Surroundings, SurroundingsWatch},
    },
    settings::ServerArgs,
    tunnel::{
        Memory, Relay, RelayCallers, RelayOptions,
        server::{ListenerOptions, Sessions, TunnelMetrics},
    },
    wait::changed_before,
};

/// Identity, nodes, sessions, and what shows them.
pub(super) struct Components {
    pub(super) started_at: OffsetDateTime,
    pub(super) platform: Platform,
    pub(super) own_addresses: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    pub(super) surroundings: watch::Receiver<Arc<Surroundings>>,
    pub(super) sessions: Sessions,
    pub(super) metrics: ServerMetrics,
    pub(super) readiness: Readiness,
    server_id: String,
    memory: Memory,
    /// Reaches the nodes whose session another server has.
    pub(super) relay: Option<Relay>,
    /// The other servers that have this one reach nodes.
    pub(super) relay_callers: RelayCallers,
    /// node table --Services that are caught--> status
    pub(super) applied_services: watch::Sender<Arc<AppliedServices>>,
    registry: Option<Registry>,
    watches: Option<Watches>,
}

/// What watches this machine, and still has to be run.
struct Watches {
    addresses: AddressWatch,
    surroundings: SurroundingsWatch,
}

impl Components {
    /// Prepares them; what they run ends with everything.
    pub(super) async fn new(
        args: &ServerArgs,
        in_charge: watch::Receiver<bool>,
        shutdown: &ShutdownTokens,
    ) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        let metrics = ServerMetrics::register(&mut registry);
        if args.names.yurt_tunnel_metrics {
            metrics.register_yurt_tunnel(&mut registry);
        }
        let addresses = AddressWatch::new().await?;
        let surroundings = SurroundingsWatch::new().await?;
        let readiness = Readiness::default();
        let sessions = Sessions::default();
        let server_id = format!("{:032x}", rand::random::<u128>());
        let mut platform = Platform::new(PlatformContext {
            args,
            server_id: &server_id,
            in_charge,
            addresses: &addresses,
            sessions: &sessions,
            readiness: &readiness,
            metrics: &metrics,
            leaving: &shutdown.service,
            end: &shutdown.everything,
        })
        .await?;
        let memory = memory_limit::memory(&args.session);
        ServerMetrics::register_memory(&mut registry, {
            let memory = memory.clone();
            Box::new(move || memory.read())
        });
        let relay = platform.relay.take().map(|access| {
            Relay::new(RelayOptions {
                servers: access.servers,
                tls: access.tls,
                server_name: None,
                settings: args.session.settings(),
                memory: memory.clone(),
                mark: args.mark,
                carried: metrics.carried.clone(),
                metrics: metrics.relay.clone(),
            })
        });
        if let Some(ca) = platform.authority {
            metrics.certificates.set_expiry("ca", ca.expires);
        }
        Ok(Self {
            started_at: OffsetDateTime::now_utc(),
            own_addresses: addresses.subscribe(),
            surroundings: surroundings.subscribe(),
            sessions,
            readiness,
            server_id,
            memory,
            relay,
            relay_callers: RelayCallers::default(),
            applied_services: watch::Sender::default(),
            registry: Some(registry),
            watches: Some(Watches {
                addresses,
                surroundings,
            }),
            platform,
            metrics,
        })
    }

    /// Services that may lead to nodes, if they are to be caught.
    pub(super) fn services(&self) -> Option<ServicesReader> {
        let readers = self.platform.services.as_ref();
        readers.map(|readers| readers.services.clone())
    }

    /// The metrics, the kernel's counters included; once.
    pub(super) fn registry(&mut self, redirect: &SharedRedirect) -> Registry {
        let mut registry = self.registry.take().unwrap_or_default();
        // Read without the redirect's lock, which is held while a big table is written.
        let (counters, namespaces, schemes) = {
            let redirect = redirect.lock();
            (
                redirect.counters(),
                redirect.namespaces(),
                redirect.schemes().ok(),
            )
        };
        let read_schemes = move || SchemeReport {
            schemes: schemes.iter().flat_map(Schemes::kinds).collect(),
            namespaces: namespaces.read().unwrap_or_default().named().to_vec(),
        };
        let read = move || counters.named().unwrap_or_default();
        ServerMetrics::register_redirect(&mut registry, Box::new(read), Box::new(read_schemes));
        if let Some(cluster) = &self.platform.cluster {
            ServerMetrics::register_cluster(&mut registry, Arc::clone(cluster));
        }
        registry
    }

    /// Runs what follows the outside world; once.
    pub(super) fn spawn_sources(&mut self, tasks: &mut Tasks, end: &CancellationToken) {
        let Some(Watches {
            addresses,
            surroundings,
        }) = self.watches.take()
        else {
            return;
        };
        for (name, task) in mem::take(&mut self.platform.tasks) {
            tasks.spawn(name, task);
        }
        tasks.try_spawn(
            "watching this machine's addresses",
            addresses.run(end.clone()),
        );
        tasks.try_spawn(
            "watching this machine's routes and interfaces",
            surroundings.run(end.clone()),
        );
        tasks.spawn("ending sessions of nodes that are gone", {
            self.sessions
                .clone()
                .follow(self.platform.snapshots.clone(), end.clone())
        });
        if let Some(relay) = &self.relay {
            let relay = relay.clone();
            tasks.spawn("relaying through other servers", relay.run(end.clone()));
        }
        tasks.spawn("session metrics", {
            count_sessions(self.sessions.clone(), self.metrics.clone(), end.clone())
        });
    }

    /// What the agent port needs.
    pub(super) fn listener(&self, args: &ServerArgs) -> ListenerOptions {
        ListenerOptions {
            tls: self.platform.tls.clone(),
            settings: args.session.settings(),
            memory: self.memory.clone(),
            server_id: self.server_id.clone(),
            server_count: self.platform.server_count.clone(),
            proof: self.platform.proof,
            sessions: self.sessions.clone(),
            snapshots: self.platform.snapshots.clone(),
            relay_callers: self.relay_callers.clone(),
            unary: Arc::clone(&self.platform.unary),
            metrics: TunnelMetrics {
                carried: self.metrics.carried.clone(),
                sessions_refused: self.metrics.sessions_refused.clone(),
                relay: self.metrics.relay.clone(),
            },
        }
    }
}

async fn count_sessions(sessions: Sessions, metrics: ServerMetrics, end: CancellationToken) {
    let mut changes = sessions.changes();
    loop {
        changes.borrow_and_update();
        metrics.sessions.set(to_gauge(sessions.count()));
        metrics
            .connected_nodes
            .set(to_gauge(sessions.nodes().len()));
        if !changed_before(&mut changes, &end).await {
            return;
        }
    }
}
