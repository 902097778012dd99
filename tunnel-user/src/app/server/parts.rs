//! What a standalone server consists of besides its sockets and its redirect.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::{
    app::{expiry::follow_expiry, node_table::SharedRedirect, tasks::Tasks},
    model::SnapshotReader,
    observability::{metrics::ServerMetrics, readiness::Readiness},
    pki::Validity,
    redirect::addresses::AddressWatch,
    settings::ServerArgs,
    standalone::{
        EnrolmentService, SERVER_CERTIFICATE_LIFE, ServerCertificate, Source, State,
        proto::enrolment_server::EnrolmentServer,
    },
    tunnel::server::{ListenerOptions, Sessions, TunnelMetrics, UnaryService},
};

/// A certificate request and a hundred addresses take less; anyone may send one.
const LARGEST_CALL: usize = 64 * 1024;

/// State, identity, nodes, sessions, and what shows them.
pub(super) struct Parts {
    pub(super) started_at: OffsetDateTime,
    pub(super) state: Arc<State>,
    pub(super) snapshots: SnapshotReader,
    pub(super) own_addresses: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    pub(super) sessions: Sessions,
    pub(super) validities: watch::Receiver<Validity>,
    pub(super) metrics: ServerMetrics,
    pub(super) readiness: Readiness,
    server_id: String,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    registry: Option<Registry>,
    runnable: Option<Runnable>,
}

/// What still has to be run.
struct Runnable {
    addresses: AddressWatch,
    source: Source,
    certificate: ServerCertificate,
}

impl Parts {
    pub(super) async fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let now = OffsetDateTime::now_utc();
        let mut registry = Registry::default();
        let metrics = ServerMetrics::register(&mut registry);
        let state = Arc::new(State::create(&args.state_dir, now)?);
        let ca = state.ca().validity();
        metrics.certificates.set_expiry("ca", ca.expires);
        let certificate = ServerCertificate::new(Arc::clone(&state), SERVER_CERTIFICATE_LIFE, now)?;
        let (source, snapshots) = Source::new(&state, args.tunnel_ports())?;
        let addresses = AddressWatch::new().await?;
        Ok(Self {
            started_at: now,
            own_addresses: addresses.subscribe(),
            tls: certificate.configs(),
            validities: certificate.validities(),
            server_id: format!("{:032x}", rand::random::<u128>()),
            sessions: Sessions::default(),
            readiness: Readiness::default(),
            registry: Some(registry),
            runnable: Some(Runnable {
                addresses,
                source,
                certificate,
            }),
            state,
            snapshots,
            metrics,
        })
    }

    /// The metrics, the kernel's counters included; once.
    pub(super) fn registry(&mut self, redirect: &SharedRedirect) -> Registry {
        let mut registry = self.registry.take().unwrap_or_default();
        // Read without the redirect's lock, which is held while a big table is written.
        let counters = redirect.lock().counters();
        let read = move || {
            let counters = counters.read();
            counters
                .map(|counters| counters.named().collect())
                .unwrap_or_default()
        };
        ServerMetrics::register_redirect(&mut registry, Box::new(read));
        registry
    }

    /// Runs what follows the outside world; once.
    pub(super) fn spawn_sources(&mut self, tasks: &mut Tasks, end: &CancellationToken) {
        let Some(Runnable {
            addresses,
            source,
            certificate,
        }) = self.runnable.take()
        else {
            return;
        };
        tasks.try_spawn(
            "watching this machine's addresses",
            addresses.run(end.clone()),
        );
        tasks.spawn("following the registered nodes", source.run(end.clone()));
        tasks.spawn(
            "renewing the server's certificate",
            certificate.run(end.clone()),
        );
        tasks.spawn("following who may stay", {
            self.sessions
                .clone()
                .follow(self.snapshots.clone(), end.clone())
        });
        tasks.spawn("counting sessions", {
            count_sessions(self.sessions.clone(), self.metrics.clone(), end.clone())
        });
        tasks.spawn("watching certificates", {
            let certificates = self.metrics.certificates.clone();
            follow_expiry("server", self.validities.clone(), certificates, end.clone())
        });
    }

    /// What the agent port needs.
    pub(super) fn listener(&self, args: &ServerArgs) -> ListenerOptions {
        ListenerOptions {
            tls: self.tls.clone(),
            settings: args.session.settings(),
            server_id: self.server_id.clone(),
            server_count: 1,
            sessions: self.sessions.clone(),
            snapshots: self.snapshots.clone(),
            unary: self.enrolment(args),
            metrics: TunnelMetrics {
                carried: self.metrics.carried.clone(),
                sessions_refused: self.metrics.sessions_refused.clone(),
            },
        }
    }

    fn enrolment(&self, args: &ServerArgs) -> UnaryService {
        let own_addresses = self.own_addresses.clone();
        let service = EnrolmentService::new(
            Arc::clone(&self.state),
            args.agent_certificate_ttl,
            Arc::new(move |ip| own_addresses.borrow().contains(&ip)),
        )
        .published_by(self.snapshots.clone());
        let service = EnrolmentServer::new(service).max_decoding_message_size(LARGEST_CALL);
        Arc::new(move |request| {
            let mut service = service.clone();
            Box::pin(async move {
                let Ok(response) = service.call(request).await;
                response
            })
        })
    }
}

async fn count_sessions(sessions: Sessions, metrics: ServerMetrics, end: CancellationToken) {
    let mut changes = sessions.changes();
    loop {
        changes.borrow_and_update();
        let count = i64::try_from(sessions.count()).unwrap_or(i64::MAX);
        metrics.sessions.set(count);
        tokio::select! {
            open = changes.changed() => if open.is_err() { return },
            () = end.cancelled() => return,
        }
    }
}
