//! How each component reaches the API server, and as whom.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::pki::Pki;
use super::{Directory, Machine, observers};

/// What every machine can reach; the edges through their NAT.
const API_SERVER: &str = "https://10.77.0.1:6443";

/// (file, user, group) of whoever is no node.
const COMPONENTS: [(&str, &str, &str); 4] = [
    ("admin", "kubernetes-admin", "system:masters"),
    (
        "kube-controller-manager",
        "system:kube-controller-manager",
        "",
    ),
    ("kube-scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
];

/// Writes all of them.
pub(super) fn write_all<'a>(
    directory: &Directory,
    pki: &Pki,
    machines: impl IntoIterator<Item = &'a Machine>,
) -> Result<()> {
    for (file, user, group) in COMPONENTS {
        write(directory, pki, file, user, group)?;
    }
    for (file, user) in observers::USERS {
        write(directory, pki, file, user, "")?;
    }
    for machine in machines {
        let user = format!("system:node:{}", machine.name());
        write(directory, pki, &of_node(machine), &user, "system:nodes")?;
    }
    Ok(())
}

/// The kubeconfig of a machine's kubelet.
pub(super) fn of_node(machine: &Machine) -> String {
    format!("kubelet-{}", machine.name())
}

fn write(directory: &Directory, pki: &Pki, file: &str, user: &str, group: &str) -> Result<()> {
    let credential = pki.client(user, group)?;
    let path = directory.kubeconfig(file);
    let (certificate, key) = (path.with_extension("crt"), path.with_extension("key"));
    fs::write(&certificate, credential.certificate).context("write a client's certificate")?;
    fs::write(&key, credential.key).context("write a client's key")?;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": {
            "server": API_SERVER,
            "certificate-authority": directory.pki().join("ca.crt"),
        }}],
        "users": [{ "name": user, "user": {
            "client-certificate": certificate,
            "client-key": key,
        }}],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": user } }],
        "current-context": "lab",
    });
    super::directory::write_json(&path, &config)
}
