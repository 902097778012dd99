//! The certificates of both ends, asked for by the CSR API and kept usable.
//!
//! ```text
//!  names ---> Rotation ---> Request ---> API server: pending, approved, issued (Progress)
//!  (who is asked for)  \       store <--- the certificate, verified (issued)
//!                       \--> CertificateManager --> ServerCertificate, AgentCredentials --> TLS
//! ```

mod agent;
mod issued;
pub(super) mod kind;
mod manager;
mod names;
pub(super) mod progress;
pub(super) mod request;
mod rotation;
mod server;
mod store;

pub use agent::{AgentCredentials, AgentCredentialsOptions};
pub use kind::{SERVER_NODE_NAME, SERVER_SUBJECT};
pub use names::CertificateNames;
pub use server::{ServerCertificate, ServerCertificateOptions};
