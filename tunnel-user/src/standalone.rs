//! Culvert without Kubernetes: the server keeps its own CA, and a node exists because its agent
//! enrolled with a token.
//!
//! ```text
//!  culvert token create --> tokens/<id>.json      (who may enrol, once, until when)
//!  agent -- Enrol(token, CSR) --> admission --> nodes/<name>.json --> Source --> snapshots
//!        <-- certificate that names node, addresses, enrolment
//!        -- Renew(CSR), with that certificate --> a new one
//! ```
//! All of it is in files under one state directory, changed under one lock: the command line and
//! the running server are equals.

mod addresses;
mod admission;
mod agent;
mod refused;
mod registry;
mod scan;
mod server_certificate;
mod service;
mod source;
mod state;
#[cfg(test)]
mod testing;
mod token;
mod token_record;
mod tokens;

/// The messages and services of `proto/culvert.proto`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated code"
)]
pub mod proto {
    tonic::include_proto!("culvert.v1");
}

pub use addresses::{UnusableAddress, usable};
pub use admission::{Admission, Enrolling, Issued};
pub use agent::CallError;
pub(crate) use agent::{AgentCredentials, AgentOptions};
pub use refused::Refused;
pub use registry::Registration;
pub use server_certificate::SERVER_CERTIFICATE_LIFE;
pub(crate) use server_certificate::ServerCertificate;
pub use service::{EnrolmentService, IsServerAddress};
pub use source::Source;
pub use state::{State, StateError};
pub use token::{InvalidToken, InvalidTokenId, JoinToken, TokenId};
pub use token_record::{TokenRecord, TokenStatus};
pub use tokens::{NewToken, TokenError};

use crate::observability::chain;
