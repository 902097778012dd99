//! `culvert server`.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;
use tracing::level_filters::LevelFilter;

use super::{
    ServerKubernetesArgs, TerminationArgs,
    shared::{ConfigArgs, LogArgs, MetricNameArgs, SessionArgs, positive_duration},
};
use crate::{
    model::{GatePolicy, Mark, NodeNetwork, TunnelPort},
    observability::logging::LogFilter,
    redirect::{Clients, HostRange, LOG_TARGET, LocalRanges, PodRange},
};

/// The settings of a server.
#[derive(Args, Clone, Debug)]
#[command(after_help = SETTINGS_HELP)]
pub struct ServerArgs {
    /// The file that completes flags and environment.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Directory of the server's CA, certificates, tokens and registered nodes
    #[arg(long, value_name = "DIR", default_value = "/var/lib/culvert")]
    pub state_dir: PathBuf,

    /// Directory of the admin socket that `culvert status` talks to
    #[arg(long, value_name = "DIR", default_value = "/run/culvert")]
    pub run_dir: PathBuf,

    /// Directory of one more admin socket, which no successor takes over: for the probes of a pod,
    /// where another pod's server may answer at --run-dir
    #[arg(long, value_name = "DIR")]
    pub probe_dir: Option<PathBuf>,

    /// Remove culvert's programs, maps, links and local routes from the kernel, then exit
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          hide_default_value = true)]
    pub uninstall: bool,

    /// Address on which agents, and clients that speak TLS, are received [default: every address,
    /// IPv4 and IPv6]
    #[arg(long, value_name = "IP", help_heading = "Agents")]
    pub bind_address: Option<IpAddr>,

    /// Port on which agents are received
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 10262,
        help_heading = "Agents"
    )]
    pub agent_port: u16,

    /// Port on which clients are received that speak TLS and name a node by it (SNI): they are carried
    /// to its kubelet, undecrypted; 0: none [default: 10263 with --kubernetes, else none]
    ///
    /// Clients of the other ports that the cluster lists as HTTPS are received at 20000 and the last
    /// four digits of the port: at 29443 for 9443. All of them on --bind-address.
    #[arg(long, value_name = "PORT", help_heading = "HTTPS")]
    pub https_port: Option<u16>,

    /// Whether TLS ends there.
    #[command(flatten)]
    pub termination: TerminationArgs,

    /// Port on which HTTP requests for nodes are received, at --http-address; 0: none [default: 10264 with
    /// --kubernetes, otherwise none]
    ///
    /// A request names its node in `Host`, or in the headers X-Tunnel-Proxy-Host and X-Tunnel-Proxy-Dest.
    #[arg(long, value_name = "PORT", help_heading = "HTTP")]
    pub http_port: Option<u16>,

    /// Address at which HTTP requests are received [default: --bind-address]
    #[arg(long, value_name = "IP", help_heading = "HTTP")]
    pub http_address: Option<IpAddr>,

    /// Who may use --http-port besides processes of this machine (repeatable, or a comma list) [default: the networks
    /// of --clients if it is given; otherwise with --kubernetes Nodes that are not tunnelled, and their pods]
    ///
    /// Whoever may reaches what speaks HTTP on the tunnelled ports of every node, without credentials.
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        help_heading = "HTTP"
    )]
    pub http_allow_cidrs: Vec<IpNet>,

    /// How long a certificate of an agent is valid, which renews it long before; with --kubernetes:
    /// the longest that an agent may ask for, if this server is to approve
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = positive_duration,
          help_heading = "Agents")]
    pub agent_certificate_ttl: Duration,

    /// Ports of the nodes that are tunnelled, besides 10250 and 10255 (repeatable, or a comma list)
    #[arg(
        long,
        alias = "port",
        value_name = "PORT",
        value_delimiter = ',',
        help_heading = "Redirect"
    )]
    pub ports: Vec<TunnelPort>,

    /// Networks in which nodes have their addresses (repeatable, or a comma list): a node that says
    /// it has one elsewhere does not get it [default: anywhere]
    ///
    /// Nodes say themselves which addresses they have, and get what this machine sends there. So
    /// name the networks of the nodes, and as little else as possible.
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        help_heading = "Redirect"
    )]
    pub node_networks: Vec<NodeNetwork>,

    /// Whether connects to nodes' addresses are captured; with `false` clients reach nodes by name alone, at the HTTPS
    /// and the HTTP port
    ///
    /// The kernel programs are loaded all the same, and let every connect pass.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = true, default_missing_value = "true",
          help_heading = "Redirect")]
    pub redirect: bool,

    /// Address of this machine that receives redirected connections, at most one of each family
    /// (repeatable, or a comma list) [default: this machine's primary addresses]
    ///
    /// Pods must be able to reach it. An address that the machine does not have is put on `lo`
    /// while the server runs.
    #[arg(
        long,
        value_name = "IP",
        value_delimiter = ',',
        help_heading = "Redirect"
    )]
    pub redirect_address: Vec<IpAddr>,

    /// Port that receives redirected connections
    #[arg(long, value_name = "PORT", default_value_t = const { NonZeroU16::new(10270).unwrap() },
          help_heading = "Redirect")]
    pub redirect_port: NonZeroU16,

    /// Loopback addresses that stand for nodes, to which connects of this machine's own network
    /// namespace are sent; `none`: they are noted instead, and sent to --redirect-address
    #[arg(long, value_name = "CIDR", default_value_t = HostRange::default(),
          help_heading = "Redirect")]
    pub host_range: HostRange,

    /// Addresses that stand for nodes, routed to this machine's `lo` while the server runs, to which
    /// connects of pods are sent: at most one network of each family (repeatable, or a comma list);
    /// `none`: they are noted instead, and sent to --redirect-address
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        default_value = "198.18.0.0/15,fd63:756c:7665:7274::/64",
        help_heading = "Redirect"
    )]
    pub pod_ranges: Vec<PodRange>,

    /// Who may use the redirect and the HTTPS ports (repeatable, or a comma list): `host` is the network namespace of
    /// the server, a network is that of pods, or of others at the HTTPS ports [default: everybody]
    #[arg(
        long,
        value_name = "CIDR|host",
        value_delimiter = ',',
        help_heading = "Redirect"
    )]
    pub clients: Vec<AllowedClient>,

    /// Who may use ports that lead to a node's loopback: `host`, or `all` of --clients
    #[arg(
        long,
        value_name = "WHO",
        default_value = "host",
        value_enum,
        help_heading = "Redirect"
    )]
    pub loopback_port_clients: LoopbackPortClients,

    /// What a connect to a node gets while no server is there to take it
    ///
    /// With `bypass` it goes wherever this machine's network leads it: to whoever else has the
    /// node's address there.
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "bypass",
        value_enum,
        help_heading = "Redirect"
    )]
    pub gate_policy: GatePolicy,

    /// What a connect to a node gets while that node has no session
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "reset",
        value_enum,
        help_heading = "Redirect"
    )]
    pub offline_nodes: OfflineNodes,

    /// How long after its start a server takes a node without a session for one whose agent is still on its way: its
    /// clients wait, whatever --offline-nodes says
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration,
          help_heading = "Redirect")]
    pub startup_grace: Duration,

    /// cgroup whose processes are captured [default: the root of the cgroup2 hierarchy]
    #[arg(long, value_name = "PATH", help_heading = "Redirect")]
    pub cgroup: Option<PathBuf>,

    /// Directory in a BPF file system under which programs, maps and links are pinned
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/sys/fs/bpf/culvert",
        help_heading = "Redirect"
    )]
    pub pin_root: PathBuf,

    /// Sockets with this mark are never redirected: that of an agent on the same machine
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "0xc17",
        help_heading = "Redirect"
    )]
    pub mark: Mark,

    /// Load the kernel programs that log each decision, down to this level
    ///
    /// They are slower than the plain ones, and may need `CAP_PERFMON` besides.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "off",
        value_enum,
        help_heading = "Redirect"
    )]
    pub ebpf_log_level: EbpfLogLevel,

    /// Address of /metrics, /healthz and /readyz
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST.into(),
          help_heading = "Meta")]
    pub meta_address: IpAddr,

    /// Port of /metrics, /healthz and /readyz
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 10265,
        help_heading = "Meta"
    )]
    pub meta_port: u16,

    /// How metrics are named.
    #[command(flatten)]
    pub names: MetricNameArgs,

    /// The cluster, where there is one.
    #[command(flatten)]
    pub kubernetes: ServerKubernetesArgs,

    /// How sessions are carried.
    #[command(flatten)]
    pub session: SessionArgs,

    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Who may use the redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedClient {
    /// Processes in the server's network namespace.
    Host,
    /// Clients with an address in this network, and the host's.
    Net(IpNet),
}

impl FromStr for AllowedClient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "host" {
            return Ok(Self::Host);
        }
        let net: Result<IpNet, _> = text.parse();
        net.map(|net| Self::Net(net.trunc()))
            .map_err(|_| format!("{text:?} is neither a network as in 10.244.0.0/16 nor \"host\""))
    }
}

/// Who may use ports that lead to a node's loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoopbackPortClients {
    /// Processes in the server's network namespace
    Host,
    /// Whoever may use the redirect
    All,
}

/// What a connect to a node without a session gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OfflineNodes {
    /// It is captured and reset at once; the log names the node and the reason
    Reset,
    /// It passes untouched, as if culvert were not there
    Bypass,
    /// It fails at once with ECONNREFUSED, without reaching the server
    Refuse,
}

/// How much the kernel programs log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EbpfLogLevel {
    /// Nothing: the plain programs, which cannot log, are loaded
    Off,
    /// Each connect that is redirected or refused
    Info,
    /// The same, and each connect on a tunnelled port that passes, with the reason
    Debug,
}

/// Ends the help of every command that reads a configuration file.
pub(super) const SETTINGS_HELP: &str = "\
Every flag is also read from the environment (--agent-port from CULVERT_AGENT_PORT) and from the \
YAML file that --config names (agent-port: 10262). A flag wins over the environment, the \
environment over the file.";

impl ServerArgs {
    /// What is logged: the programs' lines too, if they are to say any.
    pub fn log_filter(&self) -> LogFilter {
        let log = &self.log.log_level;
        match self.ebpf_log_level {
            EbpfLogLevel::Off => log.clone(),
            EbpfLogLevel::Info => log.with(LOG_TARGET, LevelFilter::INFO),
            EbpfLogLevel::Debug => log.with(LOG_TARGET, LevelFilter::DEBUG),
        }
    }

    /// Which local addresses are to stand for nodes.
    ///
    /// # Errors
    /// When two networks of one family are given.
    pub fn ranges(&self) -> anyhow::Result<LocalRanges> {
        let mut ranges = LocalRanges {
            host: self.host_range.0,
            ..LocalRanges::NONE
        };
        for range in self.pod_ranges.iter().filter_map(|range| range.0) {
            let (former, family) = match range {
                IpNet::V4(v4) => (ranges.pods.replace(v4).map(IpNet::from), "IPv4"),
                IpNet::V6(v6) => (ranges.v6.replace(v6).map(IpNet::from), "IPv6"),
            };
            if let Some(former) = former {
                anyhow::bail!(
                    "--pod-ranges has two networks of {family}, {former} and {range}: name one"
                );
            }
        }
        Ok(ranges)
    }

    /// Whose connects are captured; networks are looked at when a connection arrives.
    pub fn captured_clients(&self) -> Clients {
        let only_host = |client: &AllowedClient| *client == AllowedClient::Host;
        if !self.clients.is_empty() && self.clients.iter().all(only_host) {
            Clients::OwnNamespace
        } else {
            Clients::All
        }
    }

    /// The networks that clients must be in, besides the host's own addresses; empty: any.
    pub fn client_networks(&self) -> Vec<IpNet> {
        let networks = self.clients.iter().filter_map(|client| match client {
            AllowedClient::Host => None,
            AllowedClient::Net(net) => Some(*net),
        });
        networks.collect()
    }
}
