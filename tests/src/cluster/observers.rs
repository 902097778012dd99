//! What watches nodes by their IPs in real clusters: metrics-server (`kubectl top`) and Prometheus. Both run on the
//! control plane, with certificates of their own and no more rights than their manifests give them.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::control_plane::pki_file;
use super::program::Program;
use super::{Cluster, Directory, Machine, directory};
use crate::programs;

/// (file of the kubeconfig, user)
pub(super) const USERS: [(&str, &str); 2] = [
    (METRICS_SERVER, "system:metrics-server"),
    (PROMETHEUS, "prometheus"),
];

const METRICS_SERVER: &str = "metrics-server";
const METRICS_PORT: u16 = 4443;
const PROMETHEUS: &str = "prometheus";
/// Where Prometheus answers, on the control plane itself.
pub const PROMETHEUS_URL: &str = "http://127.0.0.1:9090";

impl Cluster {
    /// Starts metrics-server beside the API server, which finds it by Service and Endpoints.
    pub fn start_metrics_server(&self) -> Result<()> {
        let machine = self.control_plane();
        self.apply(
            "metrics-server-rights",
            &rights(METRICS_SERVER, &metrics_rules()),
        )?;
        self.apply("metrics-server", &metrics_service(machine))?;
        self.start(&metrics_server(self.directory(), machine)?)
    }

    /// Starts a Prometheus that scrapes kubelet and cAdvisor of every node by IP. Debian's knows nothing of Kubernetes
    /// and is told the addresses that it would else read from the Nodes.
    pub fn start_prometheus(&self) -> Result<()> {
        let machine = self.control_plane();
        self.apply("prometheus-rights", &rights(PROMETHEUS, &scrape_rules()))?;
        let home = machine.directory().join(PROMETHEUS);
        directory::make(&home)?;
        let config = home.join("prometheus.json");
        directory::write_json(&config, &prometheus_config(self))?;
        let program = Program::on(machine, PROMETHEUS, PathBuf::from(PROMETHEUS))
            .flag("config.file", config.display())
            .flag("storage.tsdb.path", home.join("data").display())
            .flag("web.listen-address", "127.0.0.1:9090");
        self.start(&program)
    }
}

/// See the [manifests](https://github.com/kubernetes-sigs/metrics-server/tree/v0.7.2/manifests/base); it scrapes by
/// node IP and checks the kubelets' certificates.
fn metrics_server(directory: &Directory, machine: &Machine) -> Result<Program> {
    let path = programs::of_module(METRICS_SERVER, METRICS_SERVER)?;
    let config = directory.kubeconfig(METRICS_SERVER);
    Ok(Program::on(machine, METRICS_SERVER, path)
        .flag("kubeconfig", config.display())
        .flag("authentication-kubeconfig", config.display())
        .flag("authorization-kubeconfig", config.display())
        .flag(
            "cert-dir",
            machine.directory().join(METRICS_SERVER).display(),
        )
        .flag("secure-port", METRICS_PORT)
        .flag(
            "kubelet-certificate-authority",
            pki_file(directory, "ca.crt"),
        )
        .flag("kubelet-preferred-address-types", "InternalIP")
        .flag("metric-resolution", "15s"))
}

/// A Service without a selector, for a program outside the cluster.
fn metrics_service(machine: &Machine) -> Value {
    let meta = json!({ "name": METRICS_SERVER, "namespace": "kube-system" });
    let address = machine.addresses()[0];
    list(&[
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": { "ports": [{ "name": "https", "port": 443, "targetPort": METRICS_PORT }] },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": METRICS_SERVER, "namespace": "kube-system",
                "labels": { "kubernetes.io/service-name": METRICS_SERVER },
            },
            "endpoints": [{ "addresses": [address] }],
            "ports": [{ "name": "https", "port": METRICS_PORT }],
        }),
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": { "name": "v1beta1.metrics.k8s.io" },
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

fn prometheus_config(cluster: &Cluster) -> Value {
    let directory = cluster.directory();
    let config = directory.kubeconfig(PROMETHEUS);
    let targets: Vec<_> = cluster.machines().iter().map(kubelet_target).collect();
    let job = |name: &str, path: &str| {
        json!({
            "job_name": name,
            "scheme": "https",
            "metrics_path": path,
            "static_configs": targets,
            "tls_config": {
                "ca_file": pki_file(directory, "ca.crt"),
                "cert_file": config.with_extension("crt"),
                "key_file": config.with_extension("key"),
            },
        })
    };
    json!({
        "global": { "scrape_interval": "5s", "scrape_timeout": "4s" },
        "scrape_configs": [job("kubelet", "/metrics"), job("cadvisor", "/metrics/cadvisor")],
    })
}

fn kubelet_target(machine: &Machine) -> Value {
    let target = format!("{}:10250", machine.addresses()[0]);
    json!({ "targets": [target], "labels": { "node": machine.name() } })
}

fn scrape_rules() -> Value {
    json!([
        { "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] },
    ])
}

fn metrics_rules() -> Value {
    json!([
        { "apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] },
    ])
}

/// A role with these rules, and for an extension of the API server the two that each of them needs.
fn rights(name: &str, rules: &Value) -> Value {
    let (_, user) = USERS
        .iter()
        .find(|(file, _)| *file == name)
        .expect("an observer");
    let role = format!("observer:{name}");
    let mut objects = vec![
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": role }, "rules": rules,
        }),
        binding(
            "ClusterRoleBinding",
            &json!({ "name": role }),
            "ClusterRole",
            &role,
            user,
        ),
    ];
    if name == METRICS_SERVER {
        let delegator = "system:auth-delegator";
        let reader = "extension-apiserver-authentication-reader";
        let meta =
            |name: &str| json!({ "name": format!("{role}:{name}"), "namespace": "kube-system" });
        let cluster_wide = json!({ "name": format!("{role}:{delegator}") });
        objects.push(binding(
            "ClusterRoleBinding",
            &cluster_wide,
            "ClusterRole",
            delegator,
            user,
        ));
        objects.push(binding("RoleBinding", &meta(reader), "Role", reader, user));
    }
    list(&objects)
}

fn binding(kind: &str, metadata: &Value, role_kind: &str, role: &str, user: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": metadata,
        "roleRef": { "apiGroup": group, "kind": role_kind, "name": role },
        "subjects": [{ "apiGroup": group, "kind": "User", "name": user }],
    })
}

fn list(objects: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects })
}
