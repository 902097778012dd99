//! Keeps the kernel's Services equal to what the cluster says of them and to the nodes that are captured.

use std::{collections::BTreeSet, mem, sync::Arc};

use tokio::sync::watch;
use tunnel_ebpf::{MAX_BACKENDS, MAX_SERVICES};

use super::node_table::SharedRedirect;
use crate::{
    model::ServicesReader,
    observability::metrics::{ServerMetrics, to_gauge},
    redirect::{ApplyError, CaughtService, LeftOutService, ServiceTable, Table},
};

/// Follows the Services that may lead to nodes.
pub(super) struct ServiceSync {
    services: Option<ServicesReader>,
    /// What the kernel holds may be a predecessor's, which followed the cluster until now: that stays until this server
    /// knows better. What a server left that stopped some time ago is removed: a `ClusterIP` may be another Service's
    /// by now.
    takes_over: bool,
    applied_tx: watch::Sender<Arc<AppliedServices>>,
    metrics: ServerMetrics,
    told: BTreeSet<LeftOutService>,
}

/// What was applied last, for people.
#[derive(Clone, Debug, Default)]
pub(super) struct AppliedServices {
    pub(super) caught: Vec<CaughtService>,
    pub(super) left_out: Vec<LeftOutService>,
}

impl ServiceSync {
    /// Without `services` none is caught.
    pub(super) fn new(
        services: Option<ServicesReader>,
        takes_over: bool,
        applied_tx: watch::Sender<Arc<AppliedServices>>,
        metrics: ServerMetrics,
    ) -> Self {
        Self {
            services,
            takes_over,
            applied_tx,
            metrics,
            told: BTreeSet::new(),
        }
    }

    /// Resolves when the cluster says something else; never if it is not asked.
    pub(super) async fn changed(&mut self) {
        match &mut self.services {
            Some(services) => crate::wait::changed(services).await,
            None => std::future::pending().await,
        }
    }

    /// Brings the kernel's Services up to date with these nodes, which were written before.
    pub(super) fn apply(
        &mut self,
        redirect: &SharedRedirect,
        nodes: &Table,
    ) -> Result<(), ApplyError> {
        let services = match &mut self.services {
            None => Arc::default(),
            Some(services) => match &*services.borrow_and_update() {
                Some(services) => Arc::clone(services),
                None if self.takes_over && redirect.lock().adopt_services()? => return Ok(()),
                None => Arc::default(),
            },
        };
        let (table, left_out) = ServiceTable::new(&services, nodes);
        let changes = redirect.lock().apply_services(&table)?;
        self.metrics
            .redirect_services
            .set(to_gauge(table.services()));
        let endpoints = to_gauge(table.backends());
        self.metrics.redirect_service_endpoints.set(endpoints);
        let without_room = to_gauge(left_out.len());
        self.metrics.services_without_room.set(without_room);
        self.tell(&left_out);
        if !changes.is_empty() {
            tracing::debug!(?changes, "applied the table of Services");
        }
        self.applied_tx.send_replace(Arc::new(AppliedServices {
            caught: table.caught().collect(),
            left_out,
        }));
        Ok(())
    }

    /// Each once, until it is over.
    fn tell(&mut self, left_out: &[LeftOutService]) {
        let told = mem::replace(&mut self.told, left_out.iter().cloned().collect());
        for LeftOutService {
            service,
            cluster,
            backends,
        } in self.told.difference(&told)
        {
            tracing::warn!(
                %service, address = %cluster, endpoints = backends,
                "connects to this Service do not reach nodes: it is one too many ({MAX_SERVICES} ports of Services \
                 with {MAX_BACKENDS} endpoints fit)"
            );
        }
    }
}
