//! The certificate of a server or an agent, kept usable. One manager does it, whoever signs:
//!
//! ```text
//!  names ---> Rotation ---> Issuer: the server's own CA | a standalone server | the CSR API
//!             (when)          |
//!                   store <---+---> CertificateManager --> PublishedCertificate, AgentCredentials --> TLS
//! ```
//! What an issuer asks for, and which certificates it can use, is its own; when it is asked, what is
//! kept on disk and what is published is the same for all.

mod agent;
mod issuer;
mod manager;
mod names;
mod published;
mod rotation;
mod store;

pub(crate) use agent::AgentCredentials;
pub(crate) use issuer::{Chain, Issuer, Judgement, Signer, Trouble, Wanted};
pub(crate) use manager::CertificateManager;
pub use names::CertificateNames;
pub(crate) use published::{PublishedCertificate, RelayCertificate, ServerCertificate};
pub(crate) use rotation::CLOCK_CHECK;
pub(crate) use store::CertificateStore;
