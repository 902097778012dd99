//! Why somebody gets no certificate: each reason in words that name the way out.

use time::OffsetDateTime;

use super::{StateError, UnusableAddress};
use crate::{
    model::NodeName,
    pki::{CaError, InvalidCsr, UnprovedIdentity},
};

/// Why a caller gets no certificate. The texts go to the caller.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Unknown id or wrong secret: the caller is not told which.
    #[error(
        "the token is not valid on this server: it was mistyped, or made on another server; make a \
         new one there with `culvert token create --node NAME`"
    )]
    UnknownToken,
    /// The token's time is over.
    #[error(
        "the token expired at {0}; make a new one with `culvert token create --node NAME` (--ttl \
         sets how long it lives)"
    )]
    Expired(OffsetDateTime),
    /// The token is for another node.
    #[error(
        "the token enrols node {token}, but this agent calls itself {agent}: start it with \
         --node-name {token}, or make a token with `culvert token create --node {agent}`"
    )]
    OtherNode {
        /// The token's node.
        token: NodeName,
        /// The caller's.
        agent: NodeName,
    },
    /// Another key has used the token.
    #[error(
        "the token was already used, by another agent or before this agent's state was lost; a \
         token enrols once, make a new one with `culvert token create --node NAME`"
    )]
    Used,
    /// The token was revoked.
    #[error("the token was revoked; make a new one with `culvert token create --node NAME`")]
    Revoked,
    /// The enrolment no longer counts.
    #[error(
        "node {0} was enrolled anew with another token since, so this enrolment no longer counts; \
         if this is the right machine, make a new token with `culvert token create --node {0}`"
    )]
    Superseded(NodeName),
    /// The node was removed.
    #[error(
        "node {0} is not registered, it was removed from the server; to bring it back, make a new \
         token with `culvert token create --node {0}`"
    )]
    NotRegistered(NodeName),
    /// The token's address went to another node.
    #[error(
        "the token names an address that the node cannot have: {0}; make a token with others, with \
         `culvert token create --node NAME --address IP`"
    )]
    Address(UnusableAddress),
    /// The agent proposed nothing that the node could have.
    #[error(
        "none of this machine's addresses can be the node's ({0}); name the address that clients \
         dial with `culvert token create --node NAME --address IP`"
    )]
    NoAddress(String),
    /// The caller showed no certificate.
    #[error(
        "a certificate is renewed for the agent that shows its present one, but this connection \
         has no client certificate; enrol with a token instead"
    )]
    NoCertificate,
    /// The caller's certificate does not say who it is.
    #[error(transparent)]
    Identity(#[from] UnprovedIdentity),
    /// The caller's certificate is over.
    #[error(
        "the certificate expired at {0}; enrol anew with a token from `culvert token create --node \
         NAME`"
    )]
    CertificateExpired(OffsetDateTime),
    /// The request for a certificate is damaged, or its sender does not hold the key.
    #[error(transparent)]
    Request(#[from] InvalidCsr),
    /// The server's state is not usable: not the caller's fault.
    #[error(transparent)]
    State(#[from] StateError),
    /// The certificate cannot be issued: not the caller's fault.
    #[error(transparent)]
    Issue(#[from] CaError),
}
