//! The way from a Node object to the snapshot, without an API server: what `cargo xtask bench nodes` measures.

use std::sync::Arc;

use kube::runtime::watcher::Event;
use time::OffsetDateTime;

use super::{
    changes::Changes,
    index::{Index, Rules},
    node::NodeObject,
};
use crate::model::{NodeNetworks, PortSet, Snapshot};

/// A source that is told of Nodes by hand, and publishes to nobody.
pub struct Rehearsal {
    index: Index,
    snapshot: Arc<Snapshot>,
}

impl Rehearsal {
    /// Follows the Nodes that are labelled as Yurt-Tunnel's edge nodes; the kubelet's ports are tunnelled.
    pub fn new() -> Self {
        let selector = "openyurt.io/is-edge-worker=true";
        let rules = Rules {
            selectors: vec![selector.parse().expect("a valid selector")],
            ports_config: "kube-system/ports".parse().expect("a valid name"),
            ports: PortSet::new(),
            reserved: PortSet::new(),
            node_networks: NodeNetworks::default(),
            kubelet_ports: PortSet::new(),
        };
        Self {
            index: Index::new(rules, None),
            snapshot: Arc::default(),
        }
    }

    /// Takes a Node as the API server writes it, in JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn hear(&mut self, node: &[u8]) -> serde_json::Result<()> {
        let node: NodeObject = serde_json::from_slice(node)?;
        self.index.apply_node(Event::Apply(node));
        Ok(())
    }

    /// Publishes what has been heard: views it, compares it with what was published last, and finds what the log would
    /// be told.
    pub fn publish(&mut self) -> Arc<Snapshot> {
        let now = OffsetDateTime::now_utc();
        let view = self.index.view(&|_, _| false, now);
        if *self.snapshot != view.snapshot {
            std::hint::black_box(Changes::between(&self.snapshot, &view.snapshot));
            std::hint::black_box(self.index.to_save(now));
            self.snapshot = Arc::new(view.snapshot);
        }
        Arc::clone(&self.snapshot)
    }
}

impl Default for Rehearsal {
    fn default() -> Self {
        Self::new()
    }
}
