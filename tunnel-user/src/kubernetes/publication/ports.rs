//! The servers' Service inside the cluster: its ports follow those of the ports' `ConfigMap`.

use k8s_openapi::api::core::v1::Service;
use kube::{Client, api::PatchParams};
use serde_json::json;

use super::{
    FIELD_MANAGER, Listings,
    followed::Followed,
    keeper::{Plan, Upkeep},
    problem::Problem,
    service_ports::{AppliedPort, plan, wanted},
};
use crate::{kubernetes::ObjectName, model::ListeningPorts, wait::changed};

/// Applies the ports.
pub(super) struct Ports {
    name: ObjectName,
    listings: Listings,
    listening: ListeningPorts,
    live: Followed<Service>,
}

impl Ports {
    pub(super) fn new(
        client: &Client,
        name: ObjectName,
        listings: Listings,
        listening: ListeningPorts,
    ) -> Self {
        let what = "the Service whose ports follow the ports' ConfigMap";
        Self {
            live: Followed::new(client, &name, what),
            name,
            listings,
            listening,
        }
    }
}

impl Upkeep for Ports {
    type Write = Vec<AppliedPort>;

    async fn hear(&mut self) {
        tokio::select! {
            () = self.live.hear() => {}
            () = changed(&mut self.listings) => {}
        }
    }

    fn plan(&self) -> Plan<Vec<AppliedPort>> {
        let listing = self.listings.borrow().clone();
        let schemes = listing.as_ref().and_then(|listing| listing.ports.as_ref());
        match (schemes, self.live.get()) {
            (Some(schemes), Some(service)) => {
                let (wanted, left_out) = wanted(schemes, &self.listening);
                let mut plan = plan(&wanted, service);
                plan.problems.extend(left_out);
                plan
            }
            (Some(_), None) if self.live.is_known() => {
                Plan::nothing_but([Problem::NoService(self.name.clone())])
            }
            (_, _) => Plan::nothing_but(self.live.trouble()),
        }
    }

    async fn write(&mut self, ports: Vec<AppliedPort>) -> kube::Result<()> {
        let port = |applied: &AppliedPort| {
            let AppliedPort { name, port, target } = applied;
            json!({ "name": name, "port": port, "protocol": "TCP", "targetPort": target })
        };
        let object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.name.name },
            "spec": { "ports": ports.iter().map(port).collect::<Vec<_>>() },
        });
        // Without force: what others have written meanwhile stays, and is looked at again.
        let params = PatchParams::apply(FIELD_MANAGER);
        self.live.apply(object, &params).await
    }
}
