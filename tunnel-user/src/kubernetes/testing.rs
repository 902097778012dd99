//! What the tests of this module share: a cluster's CA, and a client of an API server that is away.

use std::time::Duration;

use kube::{Client, Config};
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::{
    CertificateNames,
    access::install_provider,
    certificates::kind::{CertificateKind, SERVER},
};
use crate::pki::{Credential, Purpose, Validity, new_key};

pub(super) struct ClusterCa {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
}

impl ClusterCa {
    pub(super) fn new() -> Self {
        let key = new_key().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key).unwrap(),
            certificate,
        }
    }

    /// A new CA, and a server of this name with a certificate of it.
    pub(super) fn server_of(name: &str) -> (CertificateDer<'static>, Credential) {
        let ca = Self::new();
        let life = (OffsetDateTime::now_utc(), Duration::from_hours(1));
        let credential = ca.issue(&SERVER, &names(&[name], &[]), life);
        (ca.certificate, credential)
    }

    /// What the cluster's signer would issue, living for `life` from `now`.
    pub(super) fn issue(
        &self,
        kind: &CertificateKind,
        names: &CertificateNames,
        (now, life): (OffsetDateTime, Duration),
    ) -> Credential {
        let key = new_key().unwrap();
        let validity = Validity::starting(now, life);
        let mut params = CertificateParams::default();
        params.distinguished_name = kind.subject.to_name();
        params.not_before = now - Duration::from_mins(5);
        params.not_after = validity.expires;
        params.extended_key_usages = vec![match kind.purpose {
            Purpose::Client => rcgen::ExtendedKeyUsagePurpose::ClientAuth,
            Purpose::Server => rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let dns = names
            .dns
            .iter()
            .map(|name| SanType::DnsName(name.as_str().try_into().unwrap()));
        let ips = names.ips.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names = dns.chain(ips).collect();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Credential::new(key, vec![leaf]).unwrap()
    }
}

pub(super) fn names(dns: &[&str], ips: &[&str]) -> CertificateNames {
    CertificateNames {
        dns: dns.iter().map(ToString::to_string).collect(),
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

/// Whatever is asked of it fails: nobody listens on that port of loopback.
pub(super) fn absent_api_server() -> Client {
    install_provider();
    Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap()
}
