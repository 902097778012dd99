//! From what a client asks for to the node that it means, and to what that node's agent dials.

use std::fmt;

use super::DialError;
use crate::model::{NodeName, OriginalDst, Snapshot, Target, TunnelPort};

/// Where a client wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To whichever node has this address.
    Address(OriginalDst),
    /// To this node, on this port of the first of its addresses.
    Node(NodeName, u16),
    /// To this node at this address of its, whoever else states that.
    NodeAt(NodeName, OriginalDst),
}

/// Which agent dials what.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) node: NodeName,
    pub(super) target: Target,
    /// Whether clients of that node are let through to that port at all.
    pub(super) is_tunnelled: bool,
}

impl Route {
    /// The way to the destination.
    pub(super) fn to(destination: &Destination, snapshot: &Snapshot) -> Result<Self, DialError> {
        let named = |name: &NodeName| {
            let unknown = || DialError::UnknownNode(name.clone());
            snapshot.node(name).ok_or_else(unknown)
        };
        let (node, dst) = match destination {
            Destination::Address(dst) => {
                let owner = snapshot.owner(dst.0.ip());
                (owner.ok_or(DialError::UnknownAddress(dst.0.ip()))?, *dst)
            }
            Destination::Node(name, port) => {
                let node = named(name)?;
                let first = node.addresses.first();
                let address = *first.ok_or_else(|| DialError::UnknownNode(name.clone()))?;
                (node, OriginalDst((address, *port).into()))
            }
            Destination::NodeAt(name, dst) => {
                let (node, address) = (named(name)?, dst.0.ip().to_canonical());
                let mut own = node.addresses.iter();
                let has = own.any(|ip| ip.to_canonical() == address);
                let node = has.then_some(node);
                (node.ok_or(DialError::UnknownAddress(address))?, *dst)
            }
        };
        let port = TunnelPort::new(dst.0.port());
        let of_node = [snapshot.ports(), &node.extra_ports];
        Ok(Self {
            node: node.name.clone(),
            target: snapshot.target(dst),
            is_tunnelled: port
                .is_some_and(|port| of_node.iter().any(|ports| ports.contains(&port))),
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(dst) => dst.fmt(f),
            Self::Node(node, port) => write!(f, "{node}:{port}"),
            Self::NodeAt(node, dst) => write!(f, "{dst} of {node}"),
        }
    }
}
