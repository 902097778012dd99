//! The certificates that the cluster signs for culvert.
//!
//! Subjects, signers and usages are those of Yurt-Tunnel, so that an approver which knows its
//! requests accepts ours. What the signers demand:
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>

use crate::pki::{AGENT_SUBJECT, PROXY_SUBJECT, Purpose, RELAY_SUBJECT, ServerProof, Subject};

/// What all certificates of one role have in common.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kubernetes) struct CertificateKind {
    /// Whose it is; names its files and requests.
    pub(in crate::kubernetes) role: &'static str,
    pub(in crate::kubernetes) subject: Subject,
    pub(in crate::kubernetes) signer: &'static str,
    /// In order.
    pub(in crate::kubernetes) usages: [&'static str; 3],
    pub(in crate::kubernetes) purpose: Purpose,
    /// Whether a name too many is as wrong as one too few.
    pub(in crate::kubernetes) exact: bool,
}

/// Whom a server's certificate names.
pub const SERVER_SUBJECT: Subject = Subject {
    common_name: "system:node:tunnel-server",
    organization: "system:nodes",
};

/// The name of no Node: the certificates of its kubelet would have the servers' subject.
pub const SERVER_NODE_NAME: &str = "tunnel-server";

/// What proves a server to the agents of a cluster.
pub(in crate::kubernetes) const SERVER_PROOF: ServerProof = ServerProof::Subject {
    subject: SERVER_SUBJECT,
    kubelets_name: SERVER_NODE_NAME,
};

/// The server's: agents know it by its names. One name too many does no harm until it is renewed.
pub(in crate::kubernetes) const SERVER: CertificateKind = CertificateKind {
    role: "server",
    subject: SERVER_SUBJECT,
    signer: "kubernetes.io/kubelet-serving",
    usages: ["digital signature", "key encipherment", "server auth"],
    purpose: Purpose::Server,
    exact: false,
};

/// An agent's: it names the node and its addresses, and no address that the node once had.
pub(in crate::kubernetes) const AGENT: CertificateKind = CertificateKind {
    role: "agent",
    subject: AGENT_SUBJECT,
    signer: "kubernetes.io/kube-apiserver-client",
    usages: ["client auth", "digital signature", "key encipherment"],
    purpose: Purpose::Client,
    exact: true,
};

/// A server's, for when it is another server's client: it names the machine.
pub(in crate::kubernetes) const RELAY: CertificateKind = CertificateKind {
    role: "relay",
    subject: RELAY_SUBJECT,
    signer: AGENT.signer,
    usages: AGENT.usages,
    purpose: Purpose::Client,
    exact: true,
};

/// A server's, for what it asks kubelets itself (`--https-terminate`): it names the machine, though kubelets go by the
/// subject.
pub(in crate::kubernetes) const PROXY: CertificateKind = CertificateKind {
    role: "proxy",
    subject: PROXY_SUBJECT,
    signer: AGENT.signer,
    usages: AGENT.usages,
    purpose: Purpose::Client,
    exact: true,
};
