//! What a credential proves that a server issued: key, certificate and that server's CA.

use std::slice;

use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;

use crate::{
    model::AgentIdentity,
    pki::{
        AgentProof, Credential, InvalidCredential, ServerProof, TlsError, UnprovedIdentity,
        Validity, agent_identity, client_config,
    },
};

/// What is known of a credential that is stored.
#[derive(Debug)]
pub(super) struct StoredIdentity {
    pub(super) identity: AgentIdentity,
    /// The CA that issued it, which also vouches for servers.
    pub(super) ca: CertificateDer<'static>,
    pub(super) validity: Validity,
}

/// Why a stored credential is not usable.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{0}")]
    Credential(#[from] InvalidCredential),
    #[error("it lacks the CA's certificate")]
    NoCa,
    #[error("{0}")]
    Identity(#[from] UnprovedIdentity),
    #[error("its key does not belong to its certificate")]
    Tls,
}

impl StoredIdentity {
    /// Reads it, after key, certificate and CA have shown that they belong together.
    pub(super) fn of(credential: &Credential) -> Result<Self, Unusable> {
        let ca = credential.chain.get(1).ok_or(Unusable::NoCa)?.clone();
        tls(credential, slice::from_ref(&ca)).map_err(|_| Unusable::Tls)?;
        Ok(Self {
            identity: agent_identity(credential.leaf(), AgentProof::Enrolment)?,
            ca,
            validity: credential.validity,
        })
    }
}

/// The configuration for servers, which are shown the certificate without the CA: it is their own.
pub(super) fn tls(
    credential: &Credential,
    cas: &[CertificateDer<'static>],
) -> Result<ClientConfig, TlsError> {
    client_config(&credential.without_issuers(), cas, ServerProof::OwnCa)
}
