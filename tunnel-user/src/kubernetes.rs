//! Culvert in a Kubernetes cluster: the API server says which nodes exist and on which ports they
//! are reached, and signs the certificates of both ends.
//!
//! Whatever is learnt is kept on disk as well: without the API server nothing changes, and nothing
//! stops, not even over a restart.

mod access;
mod agent_credentials;
mod api_error;
mod approver;
mod certificate_kind;
mod certificate_names;
mod certificate_store;
mod csr;
mod election;
pub mod events;
mod issued;
mod kept_certificate;
mod members;
mod object_name;
mod own_node;
mod progress;
mod rotation;
mod server_certificate;
mod services;
pub mod source;
#[cfg(test)]
mod testing;
mod watch;

pub use access::{Access, AccessError};
pub use agent_credentials::{AgentCredentials, AgentCredentialsOptions};
pub use approver::{ApprovalCounts, Approver, ApproverOptions};
pub use certificate_kind::SERVER_SUBJECT;
pub use certificate_names::CertificateNames;
pub use election::Election;
pub use members::{Members, MembersOptions};
pub use object_name::{InvalidObjectName, ObjectName};
pub use own_node::OwnNode;
pub use server_certificate::{ServerCertificate, ServerCertificateOptions};
pub use services::{
    NoServerAddress, ServerAddresses, ServerAddressesOptions, ServerNames, ServerNamesOptions,
};

use crate::observability::chain;
