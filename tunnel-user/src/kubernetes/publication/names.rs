//! The `ConfigMap` of the nodes' DNS records.

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::{Client, api::PatchParams};
use serde_json::json;

use super::{
    FIELD_MANAGER, Listings,
    followed::Followed,
    keeper::{Plan, Upkeep},
    problem::Problem,
    records::{Records, any_tunnelled},
    service::{ServiceAddress, address_of},
};
use crate::{
    kubernetes::{ObjectName, source::Listing},
    wait::changed,
};

/// The records, as `CoreDNS` mounts them.
const KEY: &str = "tunnel-nodes";
/// What the values of a `ConfigMap` may have in all, see
/// <https://kubernetes.io/docs/concepts/configuration/configmap/#motivation>.
pub(super) const LIMIT: usize = 1 << 20;
/// From here on it is a problem.
const NEARLY_FULL: usize = LIMIT / 10 * 9;

/// Writes the records.
pub(super) struct Names {
    name: ObjectName,
    internal_service: ObjectName,
    listings: Listings,
    service: Followed<Service>,
    live: Followed<ConfigMap>,
}

impl Names {
    pub(super) fn new(
        client: &Client,
        name: ObjectName,
        internal_service: ObjectName,
        listings: Listings,
    ) -> Self {
        let service = "the Service that edge nodes' names lead to";
        Self {
            service: Followed::new(client, &internal_service, service),
            live: Followed::new(client, &name, "the ConfigMap of the nodes' names"),
            name,
            internal_service,
            listings,
        }
    }
}

impl Upkeep for Names {
    type Write = String;

    async fn hear(&mut self) {
        tokio::select! {
            () = self.service.hear() => {}
            () = self.live.hear() => {}
            () = changed(&mut self.listings) => {}
        }
    }

    fn plan(&self) -> Plan<String> {
        let listing = self.listings.borrow().clone();
        match listing {
            Some(listing) if self.service.is_known() && self.live.is_known() => {
                let address = address_of(&self.internal_service, self.service.get());
                plan(&listing, address, self.live.get())
            }
            Some(_) | None => {
                let troubles = self
                    .service
                    .trouble()
                    .into_iter()
                    .chain(self.live.trouble());
                Plan::nothing_but(troubles)
            }
        }
    }

    async fn write(&mut self, text: String) -> kube::Result<()> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": self.name.name },
            "data": { KEY: text },
        });
        // The key is ours, whoever wrote it before. Keys and labels that are not named stay as they are.
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.live.apply(object, &params).await
    }
}

/// What to write into the `ConfigMap` that is there.
fn plan(listing: &Listing, address: ServiceAddress, live: Option<&ConfigMap>) -> Plan<String> {
    let mut plan = Plan::default();
    let written = live.and_then(|live| live.data.as_ref()?.get(KEY));
    let others = live.map_or(0, size_of_others);
    let service = match address {
        Ok(addresses) => addresses,
        Err(problem) if any_tunnelled(&listing.nodes) => {
            plan.entries = written.map_or(0, |text| text.lines().count());
            plan.bytes = others + written.map_or(0, String::len);
            plan.problems.insert(problem);
            return plan;
        }
        Err(_) => Vec::new(),
    };
    let records = Records::of(&listing.nodes, &service);
    (plan.entries, plan.bytes) = (records.count, others + records.text.len());
    let (bytes, limit) = (plan.bytes, LIMIT);
    if !records.reserved.is_empty() {
        plan.problems
            .insert(Problem::ReservedNames(records.reserved));
    }
    if bytes > limit {
        plan.problems.insert(Problem::TooLarge { limit });
        return plan;
    }
    if bytes > NEARLY_FULL {
        let percent = bytes * 100 / limit;
        plan.problems.insert(Problem::NearlyFull { percent, limit });
    }
    plan.write = (written != Some(&records.text)).then_some(records.text);
    plan
}

/// What somebody else keeps there counts as well.
fn size_of_others(live: &ConfigMap) -> usize {
    let texts = live
        .data
        .iter()
        .flatten()
        .filter(|(key, _)| *key != KEY)
        .map(|(_, value)| value.len());
    let binaries = live
        .binary_data
        .iter()
        .flatten()
        .map(|(_, value)| value.0.len());
    texts.chain(binaries).sum()
}

#[cfg(test)]
mod tests;
