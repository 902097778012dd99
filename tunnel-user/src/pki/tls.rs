//! TLS configurations of the two ends, built whole from credentials. Rotation publishes a new one
//! on a `watch` channel; connections that stand keep theirs.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, CipherSuite, ClientConfig, OtherError, RootCertStore, ServerConfig,
    SupportedProtocolVersion,
    client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{default_provider, kx_group::X25519MLKEM768},
    },
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    CaPin, Credential, Subject, Validity, pinned::PinnedVerifier, server_verifier::ServerVerifier,
    usage::check_usage,
};

/// The ALPN name of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// That of HTTP/1.1, which knows upgrades.
pub(super) const ALPN_HTTP_1: &[u8] = b"http/1.1";

/// Why a TLS configuration cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA, the key or the certificate is not usable.
    #[error("the key or certificate cannot be used for TLS")]
    Credential(#[from] rustls::Error),
    /// The CA cannot verify the other end.
    #[error("the CA certificate cannot be used to verify the other end")]
    Ca(#[from] VerifierBuilderError),
}

/// The cryptography between culvert's own ends, whatever the process's default is. The hybrid key
/// exchange comes first: what is recorded today must not be readable once there are quantum
/// computers. So does AES-128, as in Go: it withstands them ([NIST IR 8547], section 4.2), and costs less, with its
/// SHA-256 in the handshake as well.
///
/// [NIST IR 8547]: https://csrc.nist.gov/pubs/ir/8547/ipd
pub fn provider() -> Arc<CryptoProvider> {
    let defaults = default_provider();
    let others = defaults.kx_groups.iter().copied();
    let others = others.filter(|group| group.name() != X25519MLKEM768.name());
    let mut cipher_suites = defaults.cipher_suites;
    cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(CryptoProvider {
        cipher_suites,
        kx_groups: std::iter::once(X25519MLKEM768).chain(others).collect(),
        ..defaults
    })
}

/// What culvert's own ends speak with each other: TLS 1.3, which hides the certificates, and nothing
/// older. The API server is spoken with otherwise.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// The agent port's configuration. A client without a certificate passes the handshake, because
/// an agent that is to enrol has none yet: what it may then do is the service's decision. A
/// certificate of none of the CAs, or an expired one, fails the handshake.
pub fn server_config(
    credential: &Credential,
    client_cas: &[CertificateDer<'static>],
) -> Result<ServerConfig, TlsError> {
    server_config_with(credential, with_or_without_certificate(client_cas)?)
}

/// The same for a cluster, where nobody enrols: without a certificate the handshake fails.
pub fn server_config_requiring_certificates(
    credential: &Credential,
    client_cas: &[CertificateDer<'static>],
) -> Result<ServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(client_cas)?.into(), provider())
            .build()?;
    server_config_with(credential, verifier)
}

fn server_config_with(
    credential: &Credential,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credential.chain.clone(), credential.key.clone_key())?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    without_resumption(&mut config);
    Ok(config)
}

/// The configuration for clients whose requests this server reads: it shows the certificate that `agents` shows, and
/// asks for one, which has to be of one of the CAs, if there are any. Whoever shows none has another credential, or gets
/// nothing.
pub fn terminating_server_config(
    agents: &ServerConfig,
    client_cas: &[CertificateDer<'static>],
) -> Result<ServerConfig, TlsError> {
    let verifier = if client_cas.is_empty() {
        WebPkiClientVerifier::no_client_auth()
    } else {
        with_or_without_certificate(client_cas)?
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&agents.cert_resolver));
    config.alpn_protocols = vec![ALPN_HTTP_1.to_vec()];
    without_resumption(&mut config);
    Ok(config)
}

/// Lets in who has a certificate of one of the CAs, and who has none.
fn with_or_without_certificate(
    client_cas: &[CertificateDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = roots(client_cas)?.into();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    Ok(verifier.allow_unauthenticated().build()?)
}

/// A resumed session would skip the check of the certificate's end.
fn without_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

/// The configuration of a server that waits for its first certificate: every handshake fails.
pub fn server_config_without_certificate() -> Result<ServerConfig, TlsError> {
    Ok(ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate)))
}

/// What proves a server to an agent, besides a chain to the CA and the name that was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerProof {
    /// Nothing: a standalone server's own CA issues server certificates to servers only.
    OwnCa,
    /// Its subject: a cluster's CA signs for kubelets too.
    Subject {
        /// Whom servers' certificates are of.
        subject: Subject,
        /// What the certificate of a kubelet names that has the same subject.
        kubelets_name: &'static str,
    },
}

/// The configuration of an agent that has its credential; it trusts servers of any of the CAs.
pub fn client_config(
    credential: &Credential,
    server_cas: &[CertificateDer<'static>],
    proof: ServerProof,
) -> Result<ClientConfig, TlsError> {
    let roots = roots(server_cas)?;
    let webpki = WebPkiServerVerifier::builder_with_provider(roots.into(), provider()).build()?;
    let verifier = ServerVerifier { webpki, proof };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(credential.chain.clone(), credential.key.clone_key())?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// The life of the certificate that this configuration proves an agent with.
pub fn client_validity(config: &ClientConfig) -> Option<Validity> {
    let shown = config.client_auth_cert_resolver.resolve(&[], &[])?;
    Validity::of(shown.cert.first()?)
}

/// What the holder of a certificate may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Prove to servers who it is.
    Client,
    /// Prove to clients who it is.
    Server,
}

/// Checks what the other end of a connection will check of this chain, its host name aside.
pub fn verify_chain(
    chain: &[CertificateDer<'static>],
    cas: &[CertificateDer<'static>],
    purpose: Purpose,
    now: OffsetDateTime,
) -> Result<(), TlsError> {
    let (leaf, intermediates) = chain
        .split_first()
        .ok_or(rustls::Error::NoCertificatesPresented)?;
    let now = Duration::from_secs(now.unix_timestamp().max(0).unsigned_abs());
    let now = UnixTime::since_unix_epoch(now);
    check_leaf_usage(leaf, purpose)?;
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let roots = roots(cas)?;
    match purpose {
        Purpose::Server => verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &roots,
            intermediates,
            now,
            algorithms.all,
        )?,
        Purpose::Client => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()?;
            verifier.verify_client_cert(leaf, intermediates, now)?;
        }
    }
    Ok(())
}

fn check_leaf_usage(leaf: &CertificateDer<'_>, purpose: Purpose) -> Result<(), rustls::Error> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
    check_usage(&leaf, purpose)
        .map_err(|error| CertificateError::Other(OtherError(Arc::new(error))).into())
}

/// The configuration of an agent that enrols: it has no certificate and knows the CA by its pin.
pub fn enrolment_client_config(pin: CaPin) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let verifier = PinnedVerifier::new(pin, Arc::clone(&provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

pub(super) fn roots(cas: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone())?;
    }
    Ok(roots)
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
