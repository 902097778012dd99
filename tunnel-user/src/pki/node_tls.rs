//! TLS towards a node, for what this server itself says there: a chain to the CA, the node's name or address in the
//! certificate, and no other node's name as its holder.
//!
//! A client certificate is shown to whoever has proved that, and to nobody else: the other end asks for it first, but
//! rustls says nothing of its own before it has verified what that end is.

use std::{fmt, net::IpAddr, sync::Arc};

use rustls::{
    ClientConfig, Error,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    Credential, Purpose, TlsError, provider,
    server_verifier::{Proof, ServerVerifier, unproved},
    tls::{ALPN_HTTP_1, roots},
    usage::{WrongUsage, check_usage},
};
use crate::model::NodeName;

/// Before the node's name in the subject of what the signer `kubernetes.io/kubelet-serving` signs.
const KUBELET: &str = "system:node:";

/// What proves this server to kubelets.
pub type ClientIdentity = Arc<dyn ResolvesClientCert>;

/// The key and certificate of this credential, to be shown.
pub fn client_identity(credential: &Credential) -> Result<ClientIdentity, TlsError> {
    let key = credential.key.clone_key();
    let shown = CertifiedKey::from_der(credential.chain.clone(), key, &provider())?;
    Ok(Arc::new(SingleCertAndKey::from(shown)))
}

/// The configuration of a connection to this node at this address, which shows `identity` if there is one.
pub fn node_client_config(
    node: &NodeName,
    address: IpAddr,
    cas: &[CertificateDer<'static>],
    identity: Option<ClientIdentity>,
) -> Result<ClientConfig, TlsError> {
    let roots = roots(cas)?;
    let webpki = WebPkiServerVerifier::builder_with_provider(roots.into(), provider()).build()?;
    let proof = NodeProof {
        node: node.clone(),
        address,
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { webpki, proof }));
    let mut config = match identity {
        Some(identity) => config.with_client_cert_resolver(identity),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_HTTP_1.to_vec()];
    // A resumed session would skip the check of the node's certificate.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The node's name or its address, whatever was dialled, and no other node as the holder.
#[derive(Debug)]
struct NodeProof {
    node: NodeName,
    address: IpAddr,
}

/// Why a good certificate of the right CA, for the right name, does not prove this node.
#[derive(thiserror::Error)]
enum NotTheNode {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error(transparent)]
    Usage(#[from] WrongUsage),
    #[error("the certificate is of {presented:?}, the kubelet of another node than {node}")]
    OtherNode { node: NodeName, presented: String },
}

impl Proof for NodeProof {
    fn names<'a>(&'a self, _: &'a ServerName<'a>) -> Vec<ServerName<'a>> {
        let name = ServerName::try_from(self.node.as_str()).ok();
        let address = ServerName::IpAddress(self.address.into());
        name.into_iter().chain([address]).collect()
    }

    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        self.check_holder(leaf).map_err(unproved)
    }
}

impl NodeProof {
    fn check_holder(&self, leaf: &CertificateDer<'_>) -> Result<(), NotTheNode> {
        let (_, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| NotTheNode::Unreadable)?;
        check_usage(&certificate, Purpose::Server)?;
        let mut names = certificate.subject().iter_common_name();
        let other = names.find_map(|name| {
            let name = name.as_str().ok()?;
            let node = name.strip_prefix(KUBELET)?;
            (node != self.node.as_str()).then_some(name)
        });
        match other {
            None => Ok(()),
            Some(presented) => Err(NotTheNode::OtherNode {
                node: self.node.clone(),
                presented: presented.to_owned(),
            }),
        }
    }
}

/// What rustls shows of an error that is not its own.
impl fmt::Debug for NotTheNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests;
