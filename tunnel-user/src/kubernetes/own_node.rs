//! An agent's own Node: the addresses under which clients know it.

use std::{collections::BTreeSet, net::IpAddr};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, runtime::watcher::Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    CertificateNames,
    source::usable_addresses,
    watch::{Scope, WatchLogger, Watcher, follow},
};
use crate::model::NodeName;

/// Follows one Node. Needs `list` and `watch` of `nodes`.
pub struct OwnNode {
    client: kube::Client,
    name: NodeName,
    /// this --name and internal addresses--> who asks for the certificate
    names_tx: watch::Sender<Option<CertificateNames>>,
}

impl OwnNode {
    /// Starts without an address; asks nothing of the API server.
    pub fn new(
        client: kube::Client,
        name: NodeName,
    ) -> (Self, watch::Receiver<Option<CertificateNames>>) {
        let (names_tx, names) = watch::channel(None);
        let this = Self {
            client,
            name,
            names_tx,
        };
        (this, names)
    }

    /// Follows until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let which = Scope::Named(self.name.to_string());
        let mut nodes = follow::<Node>(Api::all(self.client.clone()), &which, Watcher::Agent);
        let mut watch_logger = WatchLogger::of("this node's Node");
        loop {
            tokio::select! {
                Some(watch_event) = nodes.next() => if let Some(event) = watch_logger.tell(watch_event) {
                    self.apply(event);
                },
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// A Node that is deleted, or has no address yet, takes none away: the machine still has them.
    fn apply(&self, event: Event<Node>) {
        let (Event::Apply(node) | Event::InitApply(node)) = event else {
            return;
        };
        let addresses = internal_addresses(&node);
        if addresses.is_empty() {
            tracing::debug!(node = %self.name, "the Node has no InternalIP");
            return;
        }
        let names = Some(CertificateNames::of_node(&self.name, addresses.clone()));
        self.names_tx.send_if_modified(|known| {
            let changed = *known != names;
            if changed {
                tracing::info!(node = %self.name, ?addresses, "the addresses of this node");
                *known = names;
            }
            changed
        });
    }
}

fn internal_addresses(node: &Node) -> BTreeSet<IpAddr> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref());
    let internal = addresses.unwrap_or_default().iter();
    let internal = internal
        .filter(|address| address.type_ == "InternalIP")
        .map(|address| address.address.as_str());
    usable_addresses(internal).0.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::testing::{absent_api_server, names};

    fn node(addresses: &Value) -> Node {
        let node = json!({"metadata": {"name": "e1"}, "status": {"addresses": addresses}});
        serde_json::from_value(node).unwrap()
    }

    fn with(addresses: &[&str]) -> CertificateNames {
        names(&["e1"], addresses)
    }

    #[tokio::test]
    async fn internal_addresses_are_followed_and_never_become_none() {
        let client = absent_api_server();
        let known = with(&["10.78.0.11"]);
        let (own, wanted) = OwnNode::new(client, "e1".parse().unwrap());
        own.apply(Event::Apply(node(
            &json!([{"type": "InternalIP", "address": "10.78.0.11"}]),
        )));
        own.apply(Event::Apply(node(
            &json!([{"type": "Hostname", "address": "e1"}]),
        )));
        own.apply(Event::Delete(node(&json!([]))));
        assert_eq!(*wanted.borrow(), Some(known));
        own.apply(Event::InitApply(node(&json!([
            {"type": "InternalIP", "address": "10.78.0.12"},
            {"type": "InternalIP", "address": "fd00:78::12"},
            {"type": "InternalIP", "address": "fe80::1"},
            {"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "ExternalIP", "address": "203.0.113.5"},
            {"type": "Hostname", "address": "e1"},
        ]))));
        assert_eq!(*wanted.borrow(), Some(with(&["10.78.0.12", "fd00:78::12"])));
    }
}
