//! The flags that say which cluster a server or an agent belongs to, and what it reads there.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args};
use http::uri::Authority;

use super::shared::node_name;
use crate::{
    kubernetes::{ObjectName, source::NodeSelector},
    model::{NodeName, TunnelPort},
};

/// How to reach the cluster, and the Service at which servers take agents.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kubernetes")]
pub struct ClusterArgs {
    /// Take nodes, ports and certificates from a Kubernetes cluster: the one this pod runs in, or
    /// that of --kubeconfig
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          hide_default_value = true)]
    pub kubernetes: bool,

    /// Kubeconfig of the cluster, with --kubernetes [default: the service account of this pod]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Where the API server is, for the service account of this pod [default: as the kubelet tells the pod]
    ///
    /// For nodes whose pods do not reach it at the address of the Service `kubernetes`.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub api_server: Option<Authority>,

    /// Directory of the key and certificate got from the cluster [default: pki in --state-dir]
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Service at which servers take agents
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        default_value = "kube-system/x-tunnel-server-svc"
    )]
    pub service: ObjectName,

    /// `ConfigMap` of the tunnelled ports besides 10250, 10255 and those that flags name
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        default_value = "kube-system/yurt-tunnel-server-cfg"
    )]
    pub ports_config: ObjectName,
}

/// What a server reads in its cluster, and what it does there.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kubernetes")]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch")]
pub struct ServerKubernetesArgs {
    /// How to reach the cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Label selector of the nodes that are tunnelled (repeatable, in the environment a list with
    /// ';'); a node that matches any is
    #[arg(long, value_name = "SELECTOR", value_delimiter = ';', default_values = [
        "openyurt.io/is-edge-worker=true",
        "openyurt.io/edge-enable-reverseTunnel-client=true",
    ])]
    pub node_selector: Vec<NodeSelector>,

    /// Ports that a Node may name as its kubelet's; another one is not captured (repeatable, or a
    /// comma list)
    #[arg(
        long,
        value_name = "PORT",
        value_delimiter = ',',
        default_value = "10250"
    )]
    pub kubelet_ports: Vec<TunnelPort>,

    /// Whether connects to the `ClusterIP` of a Service reach nodes that are among its endpoints, though kube-proxy
    /// knows no way to them
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = true, default_missing_value = "true",
          help_heading = "Redirect")]
    pub catch_services: bool,

    /// Service under which the cluster's own clients know the server, and to which names of edge nodes lead
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        default_value = "kube-system/x-tunnel-server-internal-svc"
    )]
    pub internal_service: ObjectName,

    /// Whether this server, while it leads, keeps the nodes' DNS records in --dns-config, and the ports of
    /// --internal-service as --ports-config has them
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub publish_names: bool,

    /// `ConfigMap` of the nodes' DNS records, which `CoreDNS` reads
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        default_value = "kube-system/yurt-tunnel-nodes"
    )]
    pub dns_config: ObjectName,

    /// Addresses that the server's certificate names besides those of the Services (repeatable, or
    /// a comma list)
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub cert_ips: Vec<IpAddr>,

    /// Names that the server's certificate carries besides those of the Services (repeatable, or a
    /// comma list)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub cert_dns_names: Vec<String>,

    /// Whether this server, while it leads, approves the certificate requests of servers and agents
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub approve_certificates: bool,

    /// Service account of the agents: who may ask for the certificate of the node its pod runs on
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        default_value = "kube-system/culvert-agent"
    )]
    pub agent_service_account: ObjectName,

    /// Take no agents: connections of this machine's clients are carried by the cluster's servers, as on a worker of
    /// the cloud
    ///
    /// Such a server asks for its relay's certificate and nothing else: it approves nothing, and writes nothing into
    /// the cluster.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          hide_default_value = true)]
    pub relay_only: bool,

    /// Service account of servers that only relay: who may ask for a relay's certificate for the machine its pod runs
    /// on
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        default_value = "kube-system/culvert-relay"
    )]
    pub relay_service_account: ObjectName,

    /// Address of this machine at which other servers reach its agent port, in order to have connections carried to
    /// nodes whose session is here [default: this machine's primary address]
    #[arg(long, value_name = "IP")]
    pub relay_address: Option<IpAddr>,

    /// Namespace of the servers' Leases: who leads, how many there are [default: that of this pod,
    /// or of the kubeconfig]
    #[arg(long, value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the machine that this server runs on; `NODE_NAME` in the environment serves too
    /// [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<NodeName>,
}

impl ServerKubernetesArgs {
    /// The name of the machine that this server runs on: as given, or the host name.
    pub fn node_name(&self) -> anyhow::Result<NodeName> {
        node_name(self.node_name.as_ref())
    }
}

impl ClusterArgs {
    /// Whether this process is a container of a pod, which the kubelet starts again when it ends.
    pub fn in_a_pod(&self) -> bool {
        self.kubernetes && self.kubeconfig.is_none()
    }

    /// Where the key and the certificate are kept.
    pub fn cert_dir(&self, state_dir: &Path) -> PathBuf {
        let given = self.cert_dir.clone();
        given.unwrap_or_else(|| state_dir.join("pki"))
    }
}
