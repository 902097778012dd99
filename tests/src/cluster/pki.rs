//! Who is who: a CA for the cluster, another for the aggregation layer, and what they issue.
//!
//! Names and organisations are those that [Kubernetes](https://kubernetes.io/docs/setup/best-practices/certificates/)
//! gives its components, so that its built-in roles fit.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};

use super::Directory;
use super::machine::KUBERNETES_SERVICE;
use crate::credential::{Authority, Credential, authority, issue, named};
use crate::lab::CONTROL;

const API_SERVER_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The cluster's CA.
pub(super) struct Pki {
    authority: Authority,
}

impl Pki {
    /// Makes the CAs and writes what the API server reads.
    pub(super) fn make(directory: &Directory) -> Result<Self> {
        let authority = authority("kubernetes")?;
        let front_proxy = authority_of_front_proxy(directory)?;
        let pki = Self { authority };
        write(directory, "ca", &pki.authority.pem(), pki.authority.key())?;
        pki.server(directory)?;
        let kubelet_client = pki.client("kube-apiserver-kubelet-client", "system:masters")?;
        kubelet_client.write(directory, "apiserver-kubelet-client")?;
        client_of(&front_proxy, "front-proxy-client", "")?
            .write(directory, "front-proxy-client")?;
        let service_accounts = KeyPair::generate()?;
        write_file(directory, "sa.key", &service_accounts.serialize_pem())?;
        write_file(directory, "sa.pub", &service_accounts.public_key_pem())?;
        Ok(pki)
    }

    /// A client of the API server: user and group, which may be empty.
    pub(super) fn client(&self, user: &str, group: &str) -> Result<Credential> {
        client_of(&self.authority, user, group)
    }

    fn server(&self, directory: &Directory) -> Result<()> {
        let mut params = CertificateParams::new(API_SERVER_NAMES.map(String::from))?;
        let addresses = CONTROL
            .into_iter()
            .chain([IpAddr::V4(KUBERNETES_SERVICE), "127.0.0.1".parse()?]);
        params
            .subject_alt_names
            .extend(addresses.map(SanType::IpAddress));
        params.distinguished_name = named("kube-apiserver", "");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        issue(params, &self.authority)?.write(directory, "apiserver")
    }
}

impl Credential {
    fn write(&self, directory: &Directory, name: &str) -> Result<()> {
        write_file(directory, &format!("{name}.crt"), &self.certificate)?;
        write_file(directory, &format!("{name}.key"), &self.key)
    }
}

fn authority_of_front_proxy(directory: &Directory) -> Result<Authority> {
    let front_proxy = authority("front-proxy-ca")?;
    write(
        directory,
        "front-proxy-ca",
        &front_proxy.pem(),
        front_proxy.key(),
    )?;
    Ok(front_proxy)
}

fn client_of(authority: &Authority, user: &str, group: &str) -> Result<Credential> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(user, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    issue(params, authority)
}

fn write(directory: &Directory, name: &str, certificate: &str, key: &KeyPair) -> Result<()> {
    write_file(directory, &format!("{name}.crt"), certificate)?;
    write_file(directory, &format!("{name}.key"), &key.serialize_pem())
}

fn write_file(directory: &Directory, name: &str, text: &str) -> Result<()> {
    let path = directory.pki().join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
