//! The words that every part of culvert shares, as types.
//!
//! A *source* (Kubernetes, or the standalone server's own registrations) writes a [`Snapshot`];
//! the redirect, the tunnel and the frontends read it through a `watch` channel and never learn
//! where it came from.

mod address;
mod address_ranges;
mod arrival;
mod gate;
mod https_ports;
mod identity;
mod mark;
mod node;
mod node_access;
mod node_networks;
mod pod_name;
mod ports;
mod printable;
mod reviews;
mod server_addr;
mod service_endpoints;
mod service_ports;
mod snapshot;
mod target;
mod user;

pub use address::{LocalAddr, OriginalDst, PeerAddr, UnfitAddress};
pub use address_ranges::AddressRanges;
pub use arrival::{ARRIVED, Family, is_probe_target};
pub use gate::GatePolicy;
pub use https_ports::{
    HttpsPorts, HttpsTarget, NoHttpsPort, https_listening_port, is_https_listening_port,
};
pub use identity::{AgentIdentity, IdentityKey};
pub use mark::{InvalidMark, Mark};
pub use node::{Admits, InvalidNodeName, Node, NodeName};
pub use node_access::{NodeAccess, Subresource, Verb};
pub use node_networks::{InvalidNodeNetwork, NodeNetwork, NodeNetworks};
pub use pod_name::PodName;
pub use ports::{ListedPorts, PortSet, TunnelPort};
pub use printable::{LONGEST_PRINTED, is_printable, printable, printable_up_to};
pub use reviews::{ReviewError, Reviews};
pub use server_addr::{AGENT_PORT, InvalidServerAddr, ServerAddr};
pub use service_endpoints::{ServiceEndpoints, ServiceName, ServicesReader};
pub use service_ports::{HTTP_PORT, HTTPS_PORT, ListeningPorts, Scheme, SchemedPorts};
pub use snapshot::{
    AddressConflict, AddressHolder, NodeChange, Snapshot, SnapshotReader, SnapshotWriter,
};
pub use target::{InvalidTarget, Target, TargetHost};
pub use user::User;
