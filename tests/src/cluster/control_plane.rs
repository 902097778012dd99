//! What runs on the control plane only: etcd, the API server and its controllers.

use std::path::PathBuf;

use anyhow::Result;

use super::machine::SERVICES;
use super::program::Program;
use super::{Directory, Machine};
use crate::programs::Kubernetes;

/// For [`super::Cluster::stop`].
pub const API_SERVER: &str = "kube-apiserver";
/// They sign certificates, among much else.
pub(super) const CONTROLLERS: &str = "kube-controller-manager";
const ETCD: &str = "etcd";
const SCHEDULER: &str = "kube-scheduler";

const ETCD_URL: &str = "http://127.0.0.1:2379";

/// A store for the API server, over plain HTTP on the machine's own loopback.
pub(super) fn etcd(machine: &Machine) -> Program {
    let peers = "http://127.0.0.1:2380";
    Program::on(machine, ETCD, PathBuf::from(ETCD))
        .flag("data-dir", machine.directory().join("etcd").display())
        .flag("listen-client-urls", ETCD_URL)
        .flag("advertise-client-urls", ETCD_URL)
        .flag("listen-peer-urls", peers)
        .flag("initial-advertise-peer-urls", peers)
        .flag("initial-cluster", format_args!("default={peers}"))
}

/// An API server as kubeadm starts it: nothing in it knows of a tunnel.
pub(super) fn api_server(directory: &Directory, machine: &Machine) -> Result<Program> {
    let program = kubernetes(machine, API_SERVER)?;
    let pki = |name| pki_file(directory, name);
    Ok(program
        .flag("etcd-servers", ETCD_URL)
        .flag("advertise-address", machine.addresses()[0])
        .flag("secure-port", 6443)
        .flag("service-cluster-ip-range", SERVICES)
        .flag("allow-privileged", true)
        .flag("authorization-mode", "Node,RBAC")
        .flag("enable-admission-plugins", "NodeRestriction")
        .flag("client-ca-file", pki("ca.crt"))
        .flag("tls-cert-file", pki("apiserver.crt"))
        .flag("tls-private-key-file", pki("apiserver.key"))
        .flag("kubelet-certificate-authority", pki("ca.crt"))
        .flag(
            "kubelet-client-certificate",
            pki("apiserver-kubelet-client.crt"),
        )
        .flag("kubelet-client-key", pki("apiserver-kubelet-client.key"))
        .flag("kubelet-preferred-address-types", "InternalIP")
        .flag(
            "service-account-issuer",
            "https://kubernetes.default.svc.cluster.local",
        )
        .flag("service-account-key-file", pki("sa.pub"))
        .flag("service-account-signing-key-file", pki("sa.key"))
        .flag("proxy-client-cert-file", pki("front-proxy-client.crt"))
        .flag("proxy-client-key-file", pki("front-proxy-client.key"))
        .flag("requestheader-client-ca-file", pki("front-proxy-ca.crt"))
        .flag("requestheader-allowed-names", "front-proxy-client")
        .flag("requestheader-extra-headers-prefix", "X-Remote-Extra-")
        .flag("requestheader-group-headers", "X-Remote-Group")
        .flag("requestheader-username-headers", "X-Remote-User"))
}

/// The controllers; given the CA's key, they sign what somebody has approved.
pub(super) fn controllers(directory: &Directory, machine: &Machine) -> Result<Program> {
    let program = kubernetes(machine, CONTROLLERS)?;
    let config = directory.kubeconfig(CONTROLLERS);
    let pki = |name| pki_file(directory, name);
    Ok(program
        .flag("kubeconfig", config.display())
        .flag("authentication-kubeconfig", config.display())
        .flag("authorization-kubeconfig", config.display())
        .flag("client-ca-file", pki("ca.crt"))
        .flag("requestheader-client-ca-file", pki("front-proxy-ca.crt"))
        .flag("cluster-signing-cert-file", pki("ca.crt"))
        .flag("cluster-signing-key-file", pki("ca.key"))
        .flag("root-ca-file", pki("ca.crt"))
        .flag("service-account-private-key-file", pki("sa.key"))
        .flag("use-service-account-credentials", true)
        .flag("leader-elect", false))
}

pub(super) fn scheduler(directory: &Directory, machine: &Machine) -> Result<Program> {
    let program = kubernetes(machine, SCHEDULER)?;
    let config = directory.kubeconfig(SCHEDULER);
    Ok(program
        .flag("kubeconfig", config.display())
        .flag("authentication-kubeconfig", config.display())
        .flag("authorization-kubeconfig", config.display())
        .flag("leader-elect", false))
}

/// The path of a certificate or key, for a flag.
pub(super) fn pki_file(directory: &Directory, name: &str) -> String {
    directory.pki().join(name).display().to_string()
}

fn kubernetes(machine: &Machine, name: &str) -> Result<Program> {
    let path = Kubernetes::chosen()?.program(name)?;
    Ok(Program::on(machine, name, path))
}
