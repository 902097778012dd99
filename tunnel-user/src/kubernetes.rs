//! Culvert in a Kubernetes cluster: the API server says which nodes exist and on which ports they
//! are reached, and signs the certificates of both ends.
//!
//! Whatever is learnt is kept on disk as well: without the API server nothing changes, and nothing
//! stops, not even over a restart.

mod access;
mod api_error;
mod api_server;
mod approver;
mod certificates;
mod client_cas;
mod election;
pub mod events;
mod membership;
mod object_name;
mod own_node;
mod publication;
mod reviews;
mod service_endpoints;
mod services;
pub mod source;
#[cfg(test)]
mod testing;
mod watch;

pub use access::{
    Access, AccessError, BadEntry, ClusterCas, CredentialFiles, KubeconfigError, authorities_of,
    client_authorities_of,
};
pub use api_server::{ApiServerAddresses, ApiServerHost};
pub use approver::{ApprovalCounts, Approver, ApproverOptions};
pub(crate) use certificates::{
    AgentCredentials, CertificateOptions, ProxyCertificate, RelayCertificate, ServerCertificate,
};
pub use certificates::{SERVER_NODE_NAME, SERVER_SUBJECT};
pub use client_cas::ClientCas;
pub use election::Election;
pub use membership::{Members, Membership, MembershipOptions};
pub use object_name::{InvalidObjectName, ObjectName};
pub use own_node::OwnNode;
pub use publication::{Publication, PublicationOptions, PublicationReader, Published};
pub use reviews::ApiReviews;
pub use service_endpoints::{ServiceReaders, ServiceSource};
pub use services::{
    NoServerAddress, ServerAddresses, ServerAddressesOptions, ServerNames, ServerNamesOptions,
};

pub use crate::certificates::CertificateNames;
