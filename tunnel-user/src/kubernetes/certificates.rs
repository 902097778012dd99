//! Certificates of the cluster's CA, asked for by the CSR API.
//!
//! ```text
//!  CertificateManager ---> CsrApi ---> Request ---> API server: pending, approved, issued (Progress)
//!                             \------ the certificate, verified (issued)
//! ```

mod agent;
mod csr_api;
mod issued;
pub(super) mod kind;
pub(super) mod progress;
mod proxy;
mod relay;
pub(super) mod request;
mod server;

pub(crate) use agent::AgentCredentials;
pub(crate) use csr_api::CertificateOptions;
pub use kind::{SERVER_NODE_NAME, SERVER_SUBJECT};
pub(crate) use proxy::ProxyCertificate;
pub(crate) use relay::RelayCertificate;
pub(crate) use server::ServerCertificate;
