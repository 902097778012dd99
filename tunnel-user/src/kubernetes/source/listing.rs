//! What of the cluster its own clients may know by name: every Node with where it is reached, and what is
//! spoken on the tunnelled ports. Only the server that leads needs it.

use std::net::IpAddr;

use imbl::OrdMap;

use super::node::NodeFacts;
use crate::model::{NodeName, SchemedPorts};

/// Every Node, and the ports with what is spoken there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Where each is reached.
    pub nodes: OrdMap<NodeName, NodePlace>,
    /// `None` while the `ConfigMap` of the ports was neither heard of nor kept on disk.
    pub ports: Option<SchemedPorts>,
}

/// Where a Node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePlace {
    /// Through the tunnel.
    Tunnelled,
    /// At its own addresses, in its order.
    Direct(Vec<IpAddr>),
}

impl NodePlace {
    /// A Node that is not tunnelled: at its `InternalIP`s, or, without one, at its `ExternalIP`s.
    pub(super) fn direct(facts: &NodeFacts) -> Self {
        let addresses = if facts.internal.is_empty() {
            &facts.external
        } else {
            &facts.internal
        };
        Self::Direct(addresses.clone())
    }
}
