//! A certificate authority that lives in two files.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, string::Ia5String,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{AgentCsr, CaPin, Validity, identity::ENROLMENT_URN, new_key, subject::AGENT_SUBJECT};
use crate::model::AgentIdentity;

/// The name of every standalone server. Agents check this one name: behind NAT a server has no
/// address that all of them could know it by.
pub const SERVER_NAME: &str = "culvert-server";

const CA_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

/// Issues certificates.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pin: CaPin,
    validity: Validity,
    pem: String,
}

/// Why a CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate file holds none.
    #[error("the CA certificate is not a PEM certificate")]
    Certificate,
    /// The key file holds none.
    #[error("the CA key is not a PEM private key")]
    Key(#[source] rcgen::Error),
    /// Certificate and key are of different CAs.
    #[error("the CA key does not belong to the CA certificate")]
    Mismatch,
    /// A signature failed.
    #[error("cannot issue a certificate")]
    Issue(#[from] rcgen::Error),
}

impl Ca {
    /// A new CA with a new key, which [`key_pem`](Self::key_pem) gives for storing.
    pub fn generate(now: OffsetDateTime) -> Result<Self, CaError> {
        let key = new_key()?;
        let mut params = params(Validity::starting(now, CA_LIFE));
        let serial = hex::encode(rand::random::<[u8; 4]>());
        // A serial in the name: two CAs of the same name confuse whoever looks them up by name.
        push_name(
            &mut params,
            DnType::CommonName,
            &format!("culvert CA {serial}"),
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Self::new(certificate.der().clone(), certificate.pem(), key)
    }

    /// The CA of a certificate and a key in PEM.
    pub fn load(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, CaError> {
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem).map_err(|_| CaError::Certificate)?;
        let key_pem = str::from_utf8(key_pem)
            .map_err(|_| CaError::Key(rcgen::Error::CouldNotParseKeyPair))?;
        let key = KeyPair::from_pem(key_pem).map_err(CaError::Key)?;
        let pem = String::from_utf8_lossy(certificate_pem).into_owned();
        Self::new(certificate, pem, key)
    }

    fn new(
        certificate: CertificateDer<'static>,
        pem: String,
        key: KeyPair,
    ) -> Result<Self, CaError> {
        let pin = CaPin::of(&certificate).ok_or(CaError::Certificate)?;
        let validity = Validity::of(&certificate).ok_or(CaError::Certificate)?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|_| CaError::Certificate)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            issuer,
            certificate,
            pin,
            validity,
            pem,
        })
    }

    /// The CA's own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's own certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The CA's private key in PEM: for its file, for nothing else.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The life of the CA's own certificate.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The hash by which agents know this CA before they have its certificate.
    pub fn pin(&self) -> CaPin {
        self.pin
    }

    /// A certificate for a server named [`SERVER_NAME`], which cannot be used by a client.
    pub fn issue_server(
        &self,
        key: &impl PublicKeyData,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, CaError> {
        let mut params = params(validity);
        push_name(&mut params, DnType::CommonName, SERVER_NAME);
        params.subject_alt_names = vec![SanType::DnsName(ia5(SERVER_NAME)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, key)
    }

    /// A certificate for an agent, which cannot be used by a server. Takes the public key from the
    /// request and everything else from `identity`.
    pub fn issue_agent(
        &self,
        request: &AgentCsr,
        identity: &AgentIdentity,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, CaError> {
        let mut params = params(validity);
        params.distinguished_name = AGENT_SUBJECT.to_name();
        let enrolment = format!("{ENROLMENT_URN}{}", identity.key);
        params.subject_alt_names = vec![
            SanType::DnsName(ia5(identity.node.as_str())?),
            SanType::URI(ia5(&enrolment)?),
        ];
        let addresses = identity.addresses.iter().copied();
        params
            .subject_alt_names
            .extend(addresses.map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &request.public_key)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

fn params(validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before();
    params.not_after = validity.expires;
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 16]>()));
    params
}

fn push_name(params: &mut CertificateParams, kind: DnType, value: &str) {
    params.distinguished_name.push(kind, value);
}

fn ia5(text: &str) -> Result<Ia5String, rcgen::Error> {
    text.try_into()
}
