//! What a server consists of besides its sockets and its redirect.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    platform::{OnNoSession, Platform, PlatformContext, ReadValidity},
    shut_down::ShutdownTokens,
};
use crate::{
    app::{memory_limit, node_table::SharedRedirect, tasks::Tasks},
    model::SnapshotReader,
    observability::{
        metrics::{ReadCluster, SchemeReport, ServerMetrics},
        readiness::Readiness,
    },
    pki::{AgentProof, Validity},
    redirect::{
        Schemes,
        addresses::{AddressWatch, Surroundings, SurroundingsWatch},
    },
    settings::ServerArgs,
    tunnel::{
        Memory,
        server::{ListenerOptions, Sessions, TunnelMetrics, UnaryService},
    },
    wait::changed_before,
};

/// Identity, nodes, sessions, and what shows them.
pub(super) struct Components {
    pub(super) started_at: OffsetDateTime,
    pub(super) snapshots: SnapshotReader,
    pub(super) own_addresses: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    pub(super) surroundings: watch::Receiver<Arc<Surroundings>>,
    pub(super) sessions: Sessions,
    pub(super) subject: String,
    pub(super) validity: ReadValidity,
    pub(super) authority: Option<Validity>,
    pub(super) on_no_session: OnNoSession,
    pub(super) cluster: Option<ReadCluster>,
    pub(super) metrics: ServerMetrics,
    pub(super) readiness: Readiness,
    server_id: String,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    server_count: watch::Receiver<u32>,
    proof: AgentProof,
    unary: UnaryService,
    known: Shared<BoxFuture<'static, ()>>,
    certified: Shared<BoxFuture<'static, ()>>,
    memory: Memory,
    registry: Option<Registry>,
    runnable: Option<Runnable>,
}

/// What still has to be run.
struct Runnable {
    addresses: AddressWatch,
    surroundings: SurroundingsWatch,
    platform: Vec<(&'static str, BoxFuture<'static, ()>)>,
}

impl Components {
    /// Prepares them; what they run ends with everything.
    pub(super) async fn new(
        args: &ServerArgs,
        in_charge: watch::Receiver<bool>,
        tokens: &ShutdownTokens,
    ) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        let metrics = ServerMetrics::register(&mut registry);
        let addresses = AddressWatch::new().await?;
        let surroundings = SurroundingsWatch::new().await?;
        let readiness = Readiness::default();
        let sessions = Sessions::default();
        let server_id = format!("{:032x}", rand::random::<u128>());
        let Platform {
            snapshots,
            known,
            certified,
            tls,
            subject,
            validity,
            authority,
            server_count,
            proof,
            unary,
            on_no_session,
            cluster,
            tasks,
        } = Platform::new(PlatformContext {
            args,
            server_id: &server_id,
            in_charge,
            addresses: &addresses,
            sessions: &sessions,
            readiness: &readiness,
            metrics: &metrics,
            leaving: &tokens.clients,
            end: &tokens.everything,
        })
        .await?;
        let memory = memory_limit::memory(&args.session);
        ServerMetrics::register_memory(&mut registry, {
            let memory = memory.clone();
            Box::new(move || memory.read())
        });
        if let Some(ca) = authority {
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
            registry: Some(registry),
            runnable: Some(Runnable {
                addresses,
                surroundings,
                platform: tasks,
            }),
            snapshots,
            known: known.shared(),
            certified: certified.shared(),
            tls,
            subject,
            validity,
            authority,
            server_count,
            proof,
            unary,
            on_no_session,
            cluster,
            metrics,
        })
    }

    /// Resolves once it is known which nodes there are.
    pub(super) fn known(&self) -> impl Future<Output = ()> + use<> {
        self.known.clone()
    }

    /// Resolves once there is a certificate.
    pub(super) fn certified(&self) -> impl Future<Output = ()> + use<> {
        self.certified.clone()
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
        let read = move || {
            let counters = counters.read();
            counters
                .map(|counters| counters.named().collect())
                .unwrap_or_default()
        };
        ServerMetrics::register_redirect(&mut registry, Box::new(read), Box::new(read_schemes));
        if let Some(cluster) = &self.cluster {
            ServerMetrics::register_cluster(&mut registry, Arc::clone(cluster));
        }
        registry
    }

    /// Runs what follows the outside world; once.
    pub(super) fn spawn_sources(&mut self, tasks: &mut Tasks, end: &CancellationToken) {
        let Some(Runnable {
            addresses,
            surroundings,
            platform,
        }) = self.runnable.take()
        else {
            return;
        };
        for (name, task) in platform {
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
                .follow(self.snapshots.clone(), end.clone())
        });
        tasks.spawn("session metrics", {
            count_sessions(self.sessions.clone(), self.metrics.clone(), end.clone())
        });
    }

    /// What the agent port needs.
    pub(super) fn listener(&self, args: &ServerArgs) -> ListenerOptions {
        ListenerOptions {
            tls: self.tls.clone(),
            settings: args.session.settings(),
            memory: self.memory.clone(),
            server_id: self.server_id.clone(),
            server_count: self.server_count.clone(),
            proof: self.proof,
            sessions: self.sessions.clone(),
            snapshots: self.snapshots.clone(),
            unary: Arc::clone(&self.unary),
            metrics: TunnelMetrics {
                carried: self.metrics.carried.clone(),
                sessions_refused: self.metrics.sessions_refused.clone(),
            },
        }
    }
}

async fn count_sessions(sessions: Sessions, metrics: ServerMetrics, end: CancellationToken) {
    let mut changes = sessions.changes();
    loop {
        changes.borrow_and_update();
        let count = i64::try_from(sessions.count()).unwrap_or(i64::MAX);
        metrics.sessions.set(count);
        let connected = i64::try_from(sessions.nodes().len()).unwrap_or(i64::MAX);
        metrics.connected_nodes.set(connected);
        if !changed_before(&mut changes, &end).await {
            return;
        }
    }
}
