//! Certificates for programs of others: a CA, and what it issues.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A CA with its key.
pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key, both in PEM.
#[derive(Debug)]
pub struct Credential {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// Makes a CA of that name.
pub fn authority(name: &str) -> Result<Authority> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name, "");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Issues a certificate for a new key.
pub fn issue(mut params: CertificateParams, authority: &Authority) -> Result<Credential> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok(Credential {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// User and group as Kubernetes reads them in a certificate; the group may be empty.
pub fn named(user: &str, group: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    if !group.is_empty() {
        name.push(DnType::OrganizationName, group);
    }
    name
}
