//! The registered nodes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};

use super::{
    State, StateError, TokenId,
    state::{read_record, readable, write_record},
};
use crate::model::{Admits, AgentIdentity, GatePolicy, IdentityKey, Node, NodeName, PortSet};

/// What replaces a lost registration.
pub(super) const ENROL_ANEW: &str = "enrol its node anew with `culvert token create --node NAME`";

/// A node that its agent enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The node's name.
    pub name: NodeName,
    /// The addresses that clients dial.
    pub addresses: Vec<IpAddr>,
    /// The enrolment that counts: the token that made it.
    pub enrolment: TokenId,
    /// When that was.
    #[serde(with = "rfc3339")]
    pub enrolled_at: OffsetDateTime,
    /// The node's own policy for a closed gate.
    pub gate_policy: Option<GatePolicy>,
}

impl Registration {
    /// What the certificate of the node's agent proves.
    pub fn identity(&self) -> AgentIdentity {
        AgentIdentity {
            node: self.name.clone(),
            addresses: self.addresses.clone(),
            key: self.key(),
        }
    }

    /// The node as snapshots have it.
    pub fn node(&self) -> Node {
        Node {
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            extra_ports: PortSet::new(),
            closed_gate: self.gate_policy,
            admits: Some(Admits::Enrolment(self.key())),
        }
    }

    fn key(&self) -> IdentityKey {
        self.enrolment.as_str().into()
    }
}

impl State {
    /// The node of this name.
    pub fn registration(&self, node: &NodeName) -> Result<Option<Registration>, StateError> {
        read_record(&self.nodes, node.as_str(), ENROL_ANEW)
    }

    /// Every registered node, by name. A record that cannot be read is left out with a warning:
    /// one damaged file must not stop everything else.
    pub fn registrations(&self) -> Result<Vec<Registration>, StateError> {
        let names = self.nodes.records()?;
        let read = |name: &String| read_record(&self.nodes, name, ENROL_ANEW);
        Ok(names
            .iter()
            .filter_map(|name| readable(read(name)))
            .collect())
    }

    /// Removes a node, whose agent is refused from then on; whether there was one.
    pub fn remove_node(&self, node: &NodeName) -> Result<bool, StateError> {
        let _lock = self.dir.lock()?;
        Ok(self.nodes.remove(&format!("{node}.json"))?)
    }

    /// Writes a registration; the caller holds the lock.
    pub(super) fn register(&self, registration: &Registration) -> Result<(), StateError> {
        write_record(&self.nodes, registration.name.as_str(), registration)
    }

    /// Who of the nodes other than `node` has which address.
    pub(super) fn owners_besides(
        &self,
        node: &NodeName,
    ) -> Result<impl Fn(IpAddr) -> Option<NodeName> + use<>, StateError> {
        let others = self.registrations()?;
        let owners: std::collections::HashMap<IpAddr, NodeName> = others
            .into_iter()
            .filter(|other| other.name != *node)
            .flat_map(|other| {
                let name = other.name;
                let addresses = other.addresses.into_iter();
                addresses.map(move |address| (address.to_canonical(), name.clone()))
            })
            .collect();
        Ok(move |address: IpAddr| owners.get(&address.to_canonical()).cloned())
    }
}
