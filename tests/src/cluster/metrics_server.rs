//! metrics-server, which `kubectl top` asks, as a program beside the API server.

use anyhow::Result;
use serde_json::{Value, json};

use super::control_plane::pki_file;
use super::observers::{binding, list, rights};
use super::program::Program;
use super::{Cluster, Directory, Machine};
use crate::programs;

pub(super) const NAME: &str = "metrics-server";
pub(super) const USER: &str = "system:metrics-server";
const PORT: u16 = 4443;
const API: &str = "v1beta1.metrics.k8s.io";

impl Cluster {
    /// Starts metrics-server beside the API server, which finds it by Service and Endpoints.
    pub fn start_metrics_server(&self) -> Result<()> {
        let machine = self.control_plane();
        self.apply("metrics-server-rights", &own_rights())?;
        self.apply("metrics-server", &service(machine))?;
        self.start(&program(self.directory(), machine)?)
    }

    /// Ends it. Its API goes as well: as long as nobody answers for one, no namespace can be removed.
    pub fn stop_metrics_server(&self) -> Result<()> {
        self.kubectl(["delete", "apiservice", API])?;
        self.stop(NAME)
    }
}

/// See the [manifests](https://github.com/kubernetes-sigs/metrics-server/tree/v0.7.2/manifests/base); it scrapes by
/// node IP and checks the kubelets' certificates.
fn program(directory: &Directory, machine: &Machine) -> Result<Program> {
    let path = programs::of_module(NAME, NAME)?;
    let config = directory.kubeconfig(NAME);
    Ok(Program::on(machine, NAME, path)
        .flag("kubeconfig", config.display())
        .flag("authentication-kubeconfig", config.display())
        .flag("authorization-kubeconfig", config.display())
        .flag("cert-dir", machine.directory().join(NAME).display())
        .flag("secure-port", PORT)
        .flag(
            "kubelet-certificate-authority",
            pki_file(directory, "ca.crt"),
        )
        .flag("kubelet-preferred-address-types", "InternalIP")
        .flag("metric-resolution", "15s"))
}

/// A Service without a selector, for a program outside the cluster.
fn service(machine: &Machine) -> Value {
    let meta = json!({ "name": NAME, "namespace": "kube-system" });
    let address = machine.addresses()[0];
    list(&[
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": { "ports": [{ "name": "https", "port": 443, "targetPort": PORT }] },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": NAME, "namespace": "kube-system",
                "labels": { "kubernetes.io/service-name": NAME },
            },
            "endpoints": [{ "addresses": [address] }],
            "ports": [{ "name": "https", "port": PORT }],
        }),
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": { "name": API },
            "spec": {
                "service": meta,
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "insecureSkipTLSVerify": true,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        }),
    ])
}

/// Reading the kubelets' figures, and the two rights that every extension of the API server needs.
fn own_rights() -> Value {
    let rules = json!([
        { "apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] },
    ]);
    let delegator = "system:auth-delegator";
    let reader = "extension-apiserver-authentication-reader";
    let meta = json!({ "name": format!("{NAME}:{reader}"), "namespace": "kube-system" });
    let cluster_wide = json!({ "name": format!("{NAME}:{delegator}") });
    let [role, bound] = rights(NAME, USER, &rules);
    list(&[
        role,
        bound,
        binding(
            "ClusterRoleBinding",
            &cluster_wide,
            ("ClusterRole", delegator),
            USER,
        ),
        binding("RoleBinding", &meta, ("Role", reader), USER),
    ])
}
