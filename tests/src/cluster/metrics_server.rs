//! metrics-server, which `kubectl top` asks: as a program beside the API server, or in a pod.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::control_plane::pki_file;
use super::observers::{binding, list, rights};
use super::program::Program;
use super::{BUSYBOX, Cluster, Directory, Machine, pods};
use crate::programs;

pub(super) const NAME: &str = "metrics-server";
pub(super) const USER: &str = "system:metrics-server";
const PORT: u16 = 4443;
const API: &str = "v1beta1.metrics.k8s.io";
/// The Service of those in pods, and the label that it knows them by.
const OF_PODS: &str = "metrics-server-pods";

impl Cluster {
    /// Starts metrics-server beside the API server, which finds it by Service and Endpoints.
    pub fn start_metrics_server(&self) -> Result<()> {
        let machine = self.control_plane();
        self.apply("metrics-server-rights", &own_rights())?;
        self.apply("metrics-server", &list(&service(machine)))?;
        self.apply("metrics-server-api", &api("kube-system", NAME))?;
        self.start(&program(self.directory(), machine)?)
    }

    /// Starts one in a pod of that name, on any machine: it dials kubelets at their addresses of that type, and asks
    /// `dns` for names.
    pub fn start_metrics_server_pod(
        &self,
        name: &str,
        machine: &Machine,
        address_type: &str,
        dns: &str,
    ) -> Result<()> {
        self.apply("metrics-server-rights", &own_rights())?;
        let mut pod = pod(name, machine, self.directory(), address_type)?;
        pods::ask(&mut pod, Some(dns));
        self.apply(name, &pod)
    }

    /// Lets the one in that pod, and no other, answer the API server.
    pub fn let_metrics_be_served_by(&self, pod: &str) -> Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": OF_PODS, "namespace": "default" },
            "spec": {
                "selector": { OF_PODS: pod },
                "ports": [{ "name": "https", "port": 443, "targetPort": PORT }],
            },
        });
        self.apply(OF_PODS, &list(&[service, api("default", OF_PODS)]))
    }

    /// Takes its API away.
    pub fn stop_serving_metrics(&self) -> Result<()> {
        self.kubectl(["delete", "apiservice", API])?;
        self.kubectl(["delete", "service", OF_PODS]).map(drop)
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
    let own = machine.directory().join(NAME);
    let flags = flags(directory, &own, "InternalIP").into_iter();
    Ok(flags.fold(
        Program::on(machine, NAME, path),
        |program, (name, value)| program.flag(name, value),
    ))
}

fn flags(directory: &Directory, own: &Path, address_type: &str) -> [(&'static str, String); 8] {
    let config = directory.kubeconfig(NAME).display().to_string();
    [
        ("kubeconfig", config.clone()),
        ("authentication-kubeconfig", config.clone()),
        ("authorization-kubeconfig", config),
        ("cert-dir", own.display().to_string()),
        ("secure-port", PORT.to_string()),
        (
            "kubelet-certificate-authority",
            pki_file(directory, "ca.crt"),
        ),
        ("kubelet-preferred-address-types", address_type.to_owned()),
        ("metric-resolution", "15s".to_owned()),
    ]
}

/// The cluster's files are where they are outside of it.
fn pod(name: &str, machine: &Machine, directory: &Directory, address_type: &str) -> Result<Value> {
    let program = programs::of_module(NAME, NAME)?;
    let files = directory.root();
    let flags = flags(directory, Path::new("/own"), address_type).into_iter();
    let flags = flags.map(|(name, value)| format!("--{name}={value}"));
    let command: Vec<_> = std::iter::once("/metrics-server".to_owned())
        .chain(flags)
        .collect();
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { OF_PODS: name } },
        "spec": {
            "nodeName": machine.name(),
            "tolerations": [{ "operator": "Exists" }],
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": BUSYBOX,
                "command": command,
                "volumeMounts": [
                    { "name": "program", "mountPath": "/metrics-server", "readOnly": true },
                    { "name": "files", "mountPath": files, "readOnly": true },
                    { "name": "own", "mountPath": "/own" },
                ],
            }],
            "volumes": [
                { "name": "program", "hostPath": { "path": program, "type": "File" } },
                { "name": "files", "hostPath": { "path": files, "type": "Directory" } },
                { "name": "own", "emptyDir": {} },
            ],
        },
    }))
}

/// A Service without a selector, for a program outside the cluster.
fn service(machine: &Machine) -> [Value; 2] {
    let address = machine.addresses()[0];
    [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": NAME, "namespace": "kube-system" },
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
    ]
}

/// Which Service answers for the API.
fn api(namespace: &str, service: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": API },
        "spec": {
            "service": { "name": service, "namespace": namespace },
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    })
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
