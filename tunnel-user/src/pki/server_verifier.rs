//! Trust in a server, beyond its chain and its name.
//!
//! A cluster's CA signs serving certificates for every kubelet as well, and for addresses that the
//! kubelet itself states: name and chain alone would let any node pose as the server. So a cluster's
//! server is known by its subject, too. That is the subject of a kubelet on a Node of a certain name,
//! whose certificates name their Node; a server's never do.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    Purpose, ServerProof, Subject,
    subject::{AlternativeNames, UnreadableExtension},
    usage::{WrongUsage, check_usage},
};

/// Why a good certificate of the right CA, for the right name, does not prove a server.
#[derive(thiserror::Error)]
enum NotTheServer {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error(transparent)]
    Usage(#[from] WrongUsage),
    #[error(
        "the certificate is of {presented:?}, not the server's: servers are known by {expected}; \
         something else answers at the server's address"
    )]
    Subject {
        expected: Subject,
        presented: String,
    },
    #[error(
        "the certificate names {0}, so it may be that of the kubelet on a Node of this name: no \
         Node may be called so, and no server's certificate names it"
    )]
    Kubelet(&'static str),
}

/// What proves a server besides a chain to the CA.
pub(super) trait Proof: fmt::Debug + Send + Sync {
    /// The names of which its certificate has to have one, where `dialled` is the one that was dialled.
    fn names<'a>(&'a self, dialled: &'a ServerName<'a>) -> Vec<ServerName<'a>>;

    /// Checks what webpki does not.
    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), Error>;
}

/// Accepts what webpki accepts, of a server that this proves.
#[derive(Debug)]
pub(super) struct ServerVerifier<P> {
    pub(super) webpki: Arc<WebPkiServerVerifier>,
    pub(super) proof: P,
}

impl Proof for ServerProof {
    fn names<'a>(&'a self, dialled: &'a ServerName<'a>) -> Vec<ServerName<'a>> {
        vec![dialled.to_owned()]
    }

    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        check_server(leaf, *self)
    }
}

/// Checks what webpki does not.
pub(super) fn check_server(leaf: &CertificateDer<'_>, proof: ServerProof) -> Result<(), Error> {
    let checked = proves_server(leaf, proof);
    checked.map_err(unproved)
}

/// An error that is not rustls' own, as one of its own.
pub(super) fn unproved(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

fn proves_server(leaf: &CertificateDer<'_>, proof: ServerProof) -> Result<(), NotTheServer> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| NotTheServer::Unreadable)?;
    check_usage(&certificate, Purpose::Server)?;
    let ServerProof::Subject {
        subject,
        kubelets_name,
    } = proof
    else {
        return Ok(());
    };
    if !subject.is_exactly(certificate.subject()) {
        return Err(NotTheServer::Subject {
            expected: subject,
            presented: certificate.subject().to_string(),
        });
    }
    let names = AlternativeNames::of(certificate.extensions())?;
    if names
        .dns
        .iter()
        .any(|name| name.eq_ignore_ascii_case(kubelets_name))
    {
        return Err(NotTheServer::Kubelet(kubelets_name));
    }
    Ok(())
}

/// What rustls shows of an error that is not its own.
impl fmt::Debug for NotTheServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<UnreadableExtension> for NotTheServer {
    fn from(_: UnreadableExtension) -> Self {
        Self::Unreadable
    }
}

impl<P: Proof> ServerCertVerifier for ServerVerifier<P> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut none_fits = Error::from(CertificateError::NotValidForName);
        for name in self.proof.names(server_name) {
            let verified = self.webpki.verify_server_cert(
                end_entity,
                intermediates,
                &name,
                ocsp_response,
                now,
            );
            match verified {
                Ok(verified) => {
                    self.proof.check(end_entity)?;
                    return Ok(verified);
                }
                Err(error) if is_about_the_name(&error) => none_fits = error,
                Err(error) => return Err(error),
            }
        }
        Err(none_fits)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

fn is_about_the_name(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}
