//! What `culvert status` shows of a server.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use time::OffsetDateTime;
use tokio::sync::watch;

use super::{Components, client_sockets::ClientSockets, platform::HeldCertificate};
use crate::{
    app::{
        certificates::certificate_status, node_table::SharedRedirect,
        service_table::AppliedServices,
    },
    model::{GatePolicy, SnapshotReader},
    observability::{
        admin::MakeStatus,
        metrics::ReadCluster,
        readiness::Readiness,
        status::{NodeStatus, RedirectStatus, Role, ServiceStatus, SessionStatus, StatusReport},
    },
    pki::Validity,
    redirect::{GateState, Scheme, Schemes},
    settings::ServerArgs,
    tunnel::server::{SessionReport, Sessions},
    yurt_tunnel::Leftover,
};

/// Makes reports.
#[derive(Clone)]
pub(super) struct Reporter {
    started_at: OffsetDateTime,
    default_policy: GatePolicy,
    snapshots: SnapshotReader,
    sessions: Sessions,
    redirect: SharedRedirect,
    clients: ClientSockets,
    services: watch::Receiver<Arc<AppliedServices>>,
    services_trouble: Option<watch::Receiver<Option<String>>>,
    readiness: Readiness,
    certificates: Vec<HeldCertificate>,
    authority: Option<Validity>,
    cluster: Option<ReadCluster>,
    yurt_tunnel: watch::Receiver<Vec<Leftover>>,
}

impl Reporter {
    pub(super) fn new(
        args: &ServerArgs,
        components: &Components,
        redirect: &SharedRedirect,
        clients: &ClientSockets,
        yurt_tunnel: &watch::Receiver<Vec<Leftover>>,
    ) -> Self {
        let followed = components.platform.services.as_ref();
        Self {
            started_at: components.started_at,
            default_policy: args.gate_policy,
            snapshots: components.platform.snapshots.clone(),
            sessions: components.sessions.clone(),
            redirect: redirect.clone(),
            clients: clients.clone(),
            services: components.applied_services.subscribe(),
            services_trouble: followed.map(|readers| readers.trouble.clone()),
            readiness: components.readiness.clone(),
            certificates: components.platform.certificates.clone(),
            authority: components.platform.authority,
            cluster: components.platform.cluster.clone(),
            yurt_tunnel: yurt_tunnel.clone(),
        }
    }

    pub(super) fn into_fn(self) -> MakeStatus {
        Arc::new(move || {
            let reporter = self.clone();
            Box::pin(async move {
                // Reading the kernel's tables may take a while when they are long.
                tokio::task::block_in_place(|| reporter.report())
            })
        })
    }

    fn report(&self) -> StatusReport {
        let now = OffsetDateTime::now_utc();
        let mut report = StatusReport::new(Role::Server, self.started_at, now);
        report.conditions = self.readiness.report().into();
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let nodes = snapshot.nodes().values();
        report.nodes = nodes
            .map(|node| NodeStatus {
                name: node.name.clone(),
                addresses: node.addresses.clone(),
                connected: self.sessions.has(&node.name),
                closed_gate: node.closed_gate,
            })
            .collect();
        report.sessions = self.sessions.reports().into_iter().map(session).collect();
        report.redirect = self.redirect();
        let held = self.certificates.iter().filter_map(|held| {
            let life = (*held.validity.borrow())?;
            Some(certificate_status(
                held.name,
                Some(held.subject.clone()),
                life,
            ))
        });
        let ca = self.authority.map(|ca| certificate_status("ca", None, ca));
        report.certificates = ca.into_iter().chain(held).collect();
        report.cluster = self.cluster.as_ref().map(|read| read());
        report
    }

    fn redirect(&self) -> Option<RedirectStatus> {
        let state = self.redirect.lock().state();
        let state = state
            .inspect_err(|error| tracing::warn!(%error, "cannot read the redirect's state"))
            .ok()?;
        let port = state.redirect_port.unwrap_or(0);
        let listeners = state.redirect_addresses.iter();
        let counters = state.counters.named();
        let counters = counters.chain(state.service_counters.named());
        Some(RedirectStatus {
            listeners: listeners.map(|ip| SocketAddr::new(*ip, port)).collect(),
            chosen: self.clients.reasons(),
            gate_open: matches!(state.gate, GateState::Open),
            closed_gate: self.default_policy,
            cgroup: state.cgroup,
            pinned_at: state.pins,
            ports: state.ports,
            entries: u64::try_from(state.nodes).unwrap_or(u64::MAX),
            services: services(&self.services.borrow()),
            services_trouble: self
                .services_trouble
                .as_ref()
                .and_then(|trouble| trouble.borrow().clone()),
            served_by: served_by(&state.schemes),
            client_namespaces: state
                .schemes
                .namespaces
                .named()
                .map(|(name, count)| (name.to_owned(), count))
                .into(),
            yurt_tunnel_rules: self
                .yurt_tunnel
                .borrow()
                .iter()
                .map(ToString::to_string)
                .collect(),
            counters: counters
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
        })
    }
}

fn services(applied: &AppliedServices) -> Vec<ServiceStatus> {
    let to_u64 = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let caught = applied.caught.iter().map(|one| ServiceStatus {
        service: one.service.to_string(),
        address: one.cluster,
        endpoints: to_u64(one.backends),
        tunnelled: Some(to_u64(one.tunnelled)),
        caught: true,
    });
    let left_out = applied.left_out.iter().map(|one| ServiceStatus {
        service: one.service.to_string(),
        address: one.cluster,
        endpoints: to_u64(one.backends),
        tunnelled: None,
        caught: false,
    });
    caught.chain(left_out).collect()
}

fn served_by(schemes: &Schemes) -> BTreeMap<String, String> {
    let Schemes { host, pods, v6, .. } = schemes;
    [("host", host), ("pods", pods), ("ipv6", v6)]
        .map(|(clients, scheme)| {
            let scheme = match scheme {
                Scheme::Range(range) => range.clone(),
                Scheme::Tuple => "tuple".to_owned(),
            };
            (clients.to_owned(), scheme)
        })
        .into()
}

fn session(report: SessionReport) -> SessionStatus {
    SessionStatus {
        node: report.node,
        remote: report.peer.0,
        connected_at: report.since.into(),
        open_connections: report.open.into(),
        bytes_to_target: report.bytes_up,
        bytes_to_client: report.bytes_down,
        peer_version: Some(report.agent_version).filter(|version| !version.is_empty()),
    }
}
