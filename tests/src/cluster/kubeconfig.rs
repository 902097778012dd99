//! How each component reaches the API server, and as whom.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::pki::Pki;
use super::{Cluster, Directory, Machine, observers};

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
    let credential = json!({ "client-certificate": certificate, "client-key": key });
    super::directory::write_json(&path, &config(directory, user, &credential))
}

fn config(directory: &Directory, user: &str, credential: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": {
            "server": API_SERVER,
            "certificate-authority": directory.pki().join("ca.crt"),
        }}],
        "users": [{ "name": user, "user": credential }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": user } }],
        "current-context": "lab",
    })
}

impl Cluster {
    /// The kubeconfig of a service account, named by namespace and name, with a token as the pod has one or, without
    /// a pod, of none.
    pub fn service_account_kubeconfig(
        &self,
        (namespace, account): (&str, &str),
        pod: Option<&str>,
    ) -> Result<PathBuf> {
        let mut words = vec!["create", "token", account, "-n", namespace];
        if let Some(pod) = pod {
            words.extend(["--bound-object-kind", "Pod", "--bound-object-name", pod]);
        }
        let token = self.kubectl(words)?;
        let directory = self.directory();
        let of_pod = pod.unwrap_or("no-pod");
        let path = directory.kubeconfig(&format!("{account}-{of_pod}"));
        let credential = json!({ "token": token.trim() });
        super::directory::write_json(&path, &config(directory, account, &credential))?;
        Ok(path)
    }
}
