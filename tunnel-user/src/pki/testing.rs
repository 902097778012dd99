//! A CA for tests, which signs whatever it is asked to.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Credential, new_key};

/// Clones are the same.
#[derive(Clone)]
pub(crate) struct TestCa {
    issuer: Arc<Issuer<'static, KeyPair>>,
    pub(crate) certificate: CertificateDer<'static>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = new_key().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Arc::new(Issuer::from_ca_cert_der(&certificate, key).unwrap()),
            certificate,
        }
    }

    /// A certificate of this holder, for these names.
    pub(crate) fn issue(
        &self,
        (name, organization): (&str, &str),
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Credential {
        let key = new_key().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, organization);
        subject.push(DnType::CommonName, name);
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        params.extended_key_usages = vec![usage];
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Credential::new(key, vec![leaf]).unwrap()
    }
}

fn san(name: &str) -> SanType {
    match name.parse() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName(name.try_into().unwrap()),
    }
}
