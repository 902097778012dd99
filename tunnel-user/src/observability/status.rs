//! What `culvert status` shows: the JSON that travels over the admin socket.
//!
//! Fields are only ever added, so that an older `culvert status` reads a newer server's report.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::model::{GatePolicy, NodeName};

/// What a server or agent is doing at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Whose report this is.
    pub role: Role,
    /// The version of the build that runs.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When this report was made.
    #[serde(with = "time::serde::rfc3339")]
    pub reported_at: OffsetDateTime,
    /// What must hold for it to work, and whether it does.
    pub conditions: Vec<ConditionStatus>,
    /// The nodes that a server knows; the one node of an agent.
    pub nodes: Vec<NodeStatus>,
    /// The open sessions.
    pub sessions: Vec<SessionStatus>,
    /// The redirect; only a server has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectStatus>,
    /// The certificates in use.
    pub certificates: Vec<CertificateStatus>,
    /// How it stands with the Kubernetes API; only a server in a cluster has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
}

/// Which end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The control plane's end.
    Server,
    /// The edge node's end.
    Agent,
}

/// One condition of readiness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionStatus {
    /// Its name, as in `/readyz`.
    pub name: String,
    /// Whether it holds.
    pub ready: bool,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// The addresses that clients dial.
    pub addresses: Vec<IpAddr>,
    /// Whether it has an open session.
    pub connected: bool,
    /// What connects to it get while the gate is closed; `None` means the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_gate: Option<GatePolicy>,
}

/// One open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The node at the edge end.
    pub node: NodeName,
    /// The other end, as this end sees it: behind a NAT, the NAT's address.
    pub remote: SocketAddr,
    /// Since when it is open.
    #[serde(with = "time::serde::rfc3339")]
    pub connected_at: OffsetDateTime,
    /// Connections open in it.
    pub open_connections: u64,
    /// Bytes carried from clients to targets since it opened.
    pub bytes_to_target: u64,
    /// Bytes carried from targets to clients since it opened.
    pub bytes_to_client: u64,
    /// The version of the other end, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_version: Option<String>,
}

/// What the kernel programs are doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectStatus {
    /// Where redirected connections arrive.
    pub listeners: Vec<SocketAddr>,
    /// What speaks for these addresses.
    #[serde(default)]
    pub chosen: BTreeMap<SocketAddr, String>,
    /// Whether connects are captured now.
    pub gate_open: bool,
    /// What connects get while they are not.
    pub closed_gate: GatePolicy,
    /// The cgroup whose processes are captured.
    pub cgroup: PathBuf,
    /// Where programs, maps and links are pinned.
    pub pinned_at: PathBuf,
    /// Tunnelled ports.
    pub ports: Vec<u16>,
    /// Addresses in the kernel's table of nodes.
    pub entries: u64,
    /// Ports of Services that lead to nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceStatus>,
    /// Why the cluster's Services are not followed now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services_trouble: Option<String>,
    /// By which addresses, or by notes, the kinds of clients are served: `host`, `pods`, `ipv6`.
    #[serde(default)]
    pub served_by: BTreeMap<String, String>,
    /// How many network namespaces of clients are served by `range`, by `tuple`, or are `unreached`.
    #[serde(default)]
    pub client_namespaces: BTreeMap<String, u64>,
    /// The chains of iptables rules that Yurt-Tunnel left on this machine, by where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub yurt_tunnel_rules: Vec<String>,
    /// The kernel programs' counters, by event.
    pub counters: BTreeMap<String, u64>,
}

/// One port of a Service with nodes among its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The Service, as `namespace/name`.
    pub service: String,
    /// What clients dial.
    pub address: SocketAddr,
    /// Its endpoints.
    pub endpoints: u64,
    /// Those that are nodes' addresses on tunnelled ports; not counted where there is no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnelled: Option<u64>,
    /// Whether connects to it are caught: false where there is no room for it.
    pub caught: bool,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// What it is for: `ca`, `server`, `agent`.
    pub name: String,
    /// Whom it names, as in `O=system:nodes, CN=system:node:tunnel-server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// From when it is valid.
    #[serde(with = "time::serde::rfc3339")]
    pub valid_from: OffsetDateTime,
    /// Until when it is valid.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// What a server knows of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// When the API server last confirmed what is known of nodes and ports; `None` while nothing
    /// is known.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub confirmed_at: Option<OffsetDateTime>,
    /// Why the API server does not confirm it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Who writes to the cluster, where somebody is known to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Whether that is this server.
    pub leading: bool,
    /// How many servers run.
    pub servers: u32,
    /// Events that could not be written, or were too many.
    #[serde(default)]
    pub events_lost: u64,
    /// What this server decided on certificate requests since it started.
    pub approvals: ApprovalStatus,
    /// What it writes while it leads, for clients that dial nodes by name; nothing where it does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedStatus>,
}

/// One object that the leading server writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedStatus {
    /// What it holds.
    pub kind: PublishedKind,
    /// Its name, as `namespace/name`.
    pub object: String,
    /// Records or ports in it; 0 while this server does not lead.
    pub entries: u64,
    /// The size of the `ConfigMap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The size that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// When this server last wrote it.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub written_at: Option<OffsetDateTime>,
    /// How often it has, since it started.
    pub writes: u64,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// What the leading server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishedKind {
    /// The nodes' DNS records.
    Names,
    /// The ports of the internal Service.
    ServicePorts,
}

impl PublishedKind {
    /// As labels of metrics and columns of tables say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::ServicePorts => "service_ports",
        }
    }
}

/// Decisions on certificate requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalStatus {
    /// Whether this server decides at all, while it leads.
    pub enabled: bool,
    /// Approved.
    pub approved: u64,
    /// Denied.
    pub denied: u64,
    /// Left pending now, as they may become right later.
    pub pending: u64,
}

impl StatusReport {
    /// A report that shows nothing yet but the process.
    pub fn new(role: Role, started_at: OffsetDateTime, reported_at: OffsetDateTime) -> Self {
        Self {
            role,
            version: crate::VERSION.to_owned(),
            pid: std::process::id(),
            started_at,
            reported_at,
            conditions: Vec::new(),
            nodes: Vec::new(),
            sessions: Vec::new(),
            redirect: None,
            certificates: Vec::new(),
            cluster: None,
        }
    }
}

impl From<super::readiness::Report> for Vec<ConditionStatus> {
    fn from(report: super::readiness::Report) -> Self {
        use super::readiness::ConditionState;
        let condition = |(name, state): (&str, ConditionState)| {
            let reason = match state {
                ConditionState::Ready => None,
                ConditionState::NotReady(reason) => Some(reason),
            };
            ConditionStatus {
                name: name.to_owned(),
                ready: reason.is_none(),
                reason,
            }
        };
        report.0.into_iter().map(condition).collect()
    }
}
