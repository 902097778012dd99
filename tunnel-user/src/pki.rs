//! Keys, certificates and who they prove somebody to be.
//!
//! Knows nothing of where certificates come from: the standalone server's own CA, the Kubernetes CSR
//! API and the manager of both (`certificates`) build on this. Three rules hold everywhere: a private key never leaves
//! the machine that made it; a file is replaced whole or not at all; and an agent's certificate
//! cannot pose as a server's, nor the other way round (extended key usage, checked by TLS).

mod ca;
mod client_ca;
mod credential;
mod csr;
mod identity;
mod node_tls;
mod pin;
mod pinned;
mod server_verifier;
mod store;
mod subject;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod usage;
mod user;
mod validity;

pub use ca::{Ca, CaError, SERVER_NAME};
pub use client_ca::{NotAClientCa, check_client_ca};
pub use credential::{Credential, InvalidCredential, certificate_pem};
pub use csr::{AgentCsr, InvalidCsr, SubjectKey, new_key, request};
pub use identity::{
    AgentProof, ClientCertificate, OnRenewal, UnprovedIdentity, agent_identity, relay_machine,
};
pub use node_tls::{ClientIdentity, client_identity, node_client_config};
pub use pin::{CaPin, InvalidPin};
pub use pinned::PinMismatch;
pub use store::{PrivateDir, StoreError, StoreLock};
pub use subject::{AGENT_SUBJECT, PROXY_SUBJECT, RELAY_SUBJECT, Subject};
pub(crate) use subject::{AlternativeNames, UnreadableExtension};
pub use tls::{
    ALPN_H2, Purpose, ServerProof, TlsError, client_config, client_validity,
    enrolment_client_config, provider, server_config, server_config_requiring_certificates,
    server_config_without_certificate, terminating_server_config, verify_chain,
};
pub use usage::WrongUsage;
pub use user::{CertificateUser, NotAUser};
pub use validity::Validity;
