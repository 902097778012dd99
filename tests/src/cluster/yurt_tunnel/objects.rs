//! The objects of [OpenYurt 1.0](https://github.com/openyurtio/openyurt/tree/v1.0.0/config/setup): names, rights, flags
//! and ports are theirs.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{AGENT, SERVER};
use crate::cluster::{BUSYBOX, Cluster};
use crate::programs;

const NAMESPACE: &str = "kube-system";
const PROXY_CLIENT: &str = "tunnel-proxy-client";

/// In the order in which they are applied, each under a name for its file.
pub(super) fn all(cluster: &Cluster) -> Result<Vec<(&'static str, Value)>> {
    let server_programs = programs::of_module("openyurt", SERVER)?;
    let programs = server_programs.parent().context("a directory")?;
    Ok(vec![
        ("yurt-tunnel-rights", rights()),
        ("yurt-tunnel-services", services()),
        ("yurt-tunnel-server-cfg", ports()),
        ("yurt-tunnel-server", server(cluster, programs)),
        ("yurt-tunnel-agent", agent(cluster, programs)),
    ])
}

/// The ConfigMap of the ports.
fn ports() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "yurt-tunnel-server-cfg", "namespace": NAMESPACE },
        "data": {
            "http-proxy-ports": "", "https-proxy-ports": "",
            "localhost-proxy-ports": "10266, 10267", "dnat-ports-pair": "",
        },
    })
}

fn rights() -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    let requests = ["certificatesigningrequests"];
    let server = json!([
        rule(
            "certificates.k8s.io",
            &requests,
            &["create", "get", "list", "watch"]
        ),
        rule("", &["endpoints"], &["get", "list", "watch"]),
        rule("", &["nodes", "pods"], &["list", "watch"]),
        rule("", &["services"], &["get", "list", "watch", "update"]),
        rule(
            "",
            &["configmaps"],
            &["list", "watch", "get", "create", "update"]
        ),
        rule(
            "coordination.k8s.io",
            &["leases"],
            &["create", "get", "update"]
        ),
    ]);
    let of_nodes = [
        "nodes/stats",
        "nodes/metrics",
        "nodes/log",
        "nodes/spec",
        "nodes/proxy",
    ];
    let proxy_client = json!([rule("", &of_nodes, &["*"])]);
    let account = json!({ "kind": "ServiceAccount", "name": SERVER, "namespace": NAMESPACE });
    let user = json!({
        "kind": "User", "name": PROXY_CLIENT, "apiGroup": "rbac.authorization.k8s.io",
    });
    list(&[
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": SERVER, "namespace": NAMESPACE },
        }),
        role(SERVER, &server),
        binding(SERVER, &account),
        role(PROXY_CLIENT, &proxy_client),
        binding(PROXY_CLIENT, &user),
    ])
}

fn services() -> Value {
    let meta = |name: &str| {
        json!({
            "name": name, "namespace": NAMESPACE, "labels": { "name": SERVER },
        })
    };
    list(&[
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta("x-tunnel-server-svc"),
            "spec": {
                "type": "NodePort", "selector": { "k8s-app": SERVER },
                "ports": [{ "name": "tcp", "port": 10262, "targetPort": 10262, "nodePort": 31008 }],
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta("x-tunnel-server-internal-svc"),
            "spec": {
                "selector": { "k8s-app": SERVER },
                "ports": [
                    { "name": "http", "port": 10255, "targetPort": 10264 },
                    { "name": "https", "port": 10250, "targetPort": 10263 },
                ],
            },
        }),
    ])
}

fn server(cluster: &Cluster, programs: &Path) -> Value {
    let edges = cluster.machines().iter().skip(1);
    let edges: Vec<_> = edges.map(|edge| edge.addresses()[0].to_string()).collect();
    let certificates = cluster
        .control_plane()
        .directory()
        .join("yurt-tunnel-server");
    let mut volumes = vec![
        ("programs", programs.to_owned(), "/programs".to_owned()),
        (
            "certificates",
            certificates,
            "/var/lib/yurttunnel-server".to_owned(),
        ),
    ];
    // What its image would have besides it: iptables, conntrack and their libraries.
    for (name, path) in [
        ("usr", "/usr"),
        ("lib", "/lib"),
        ("lib64", "/lib64"),
        ("alternatives", "/etc/alternatives"),
    ] {
        volumes.push((name, path.into(), path.to_owned()));
    }
    let container = json!({
        "name": SERVER,
        "image": BUSYBOX,
        "command": [format!("/programs/{SERVER}")],
        "args": [
            "--bind-address=$(NODE_IP)",
            "--insecure-bind-address=$(NODE_IP)",
            "--proxy-strategy=destHost",
            format!("--cert-ips={}", edges.join(",")),
            "--v=2",
        ],
        "env": [from_field("NODE_IP", "status.hostIP")],
        "securityContext": { "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } },
    });
    let selector = json!({ "openyurt.io/is-edge-worker": "false" });
    let mut pod = pod(SERVER, container, &volumes, &selector);
    pod["spec"]["serviceAccountName"] = SERVER.into();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": SERVER, "namespace": NAMESPACE },
        "spec": {
            "replicas": 1, "selector": { "matchLabels": { "k8s-app": SERVER } }, "template": pod,
        },
    })
}

/// It is the node to the API server, as with the kubeconfig of kubeadm's kubelets.
fn agent(cluster: &Cluster, programs: &Path) -> Value {
    let root = cluster.directory().root();
    let (disk, ca) = (root.to_owned(), cluster.directory().pki().join("ca.crt"));
    let configs = root.join("kubeconfig");
    let server = cluster.control_plane().addresses()[0];
    let config = configs.join("kubelet-$(NODE_NAME)").display().to_string();
    let (ca_inside, configs_inside) = (ca.display().to_string(), configs.display().to_string());
    let volumes = [
        ("programs", programs.to_owned(), "/programs".to_owned()),
        ("ca", ca, ca_inside),
        ("configs", configs, configs_inside),
        ("disk", disk, "/disk".to_owned()),
    ];
    let container = json!({
        "name": AGENT,
        "image": BUSYBOX,
        "command": [format!("/programs/{AGENT}")],
        "args": [
            "--node-name=$(NODE_NAME)",
            format!("--kube-config={config}"),
            // It would find it by the Service and the list of nodes, which kubelets may not read since Kubernetes 1.32.
            format!("--tunnelserver-addr={server}:31008"),
            // The edges of the lab share a disk.
            "--cert-dir=/disk/$(NODE_NAME)/yurt-tunnel-agent",
            "--v=2",
        ],
        "env": [
            from_field("NODE_NAME", "spec.nodeName"),
            from_field("POD_IP", "status.podIP"),
            from_field("NODE_IP", "status.hostIP"),
        ],
    });
    let selector = json!({ "openyurt.io/is-edge-worker": "true" });
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "name": AGENT, "namespace": NAMESPACE },
        "spec": {
            "selector": { "matchLabels": { "k8s-app": AGENT } },
            "template": pod(AGENT, container, &volumes, &selector),
        },
    })
}

fn pod(
    name: &str,
    mut container: Value,
    volumes: &[(&str, std::path::PathBuf, String)],
    selector: &Value,
) -> Value {
    let mounts = volumes
        .iter()
        .map(|(name, _, inside)| json!({ "name": name, "mountPath": inside }));
    container["volumeMounts"] = mounts.collect();
    let volumes = volumes
        .iter()
        .map(|(name, path, _)| json!({ "name": name, "hostPath": { "path": path } }));
    json!({
        "metadata": { "labels": { "k8s-app": name } },
        "spec": {
            "hostNetwork": true,
            "nodeSelector": selector,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [container],
            "volumes": volumes.collect::<Value>(),
        },
    })
}

fn from_field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

fn role(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": name }, "rules": rules,
    })
}

fn binding(name: &str, subject: &Value) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": name },
        "subjects": [subject],
    })
}

fn list(objects: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects })
}
