//! `culvert agent`.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _},
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::{ArgAction, Args};

use super::{
    ClusterArgs, Secret,
    server::SETTINGS_HELP,
    shared::{ConfigArgs, LogArgs, MetricNameArgs, SessionArgs, node_name, positive_duration},
};
use crate::{
    model::{Mark, NodeName, ServerAddr},
    pki::CaPin,
    standalone::JoinToken,
    tunnel::agent::{AllowedTargets, PortRange},
};

/// The settings of an agent.
#[derive(Args, Clone, Debug)]
#[command(after_help = SETTINGS_HELP)]
pub struct AgentArgs {
    /// The file that completes flags and environment.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Server to keep a session to, port 10262 unless given (repeatable, or a comma list) [default
    /// with --kubernetes: what --service leads to]
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub server: Vec<ServerAddr>,

    /// Servers to keep a session with at most, at least 1 [default: all]
    ///
    /// A server that has no session of this node has its clients' connections carried by one that has, where servers
    /// relay for each other, as they do in a cluster. Two keep the node reachable when a server is lost.
    #[arg(long, value_name = "NUMBER")]
    pub sessions: Option<NonZeroU32>,

    /// Directory of the agent's key and certificate
    #[arg(long, value_name = "DIR", default_value = "/var/lib/culvert-agent")]
    pub state_dir: PathBuf,

    /// Directory of the admin socket that `culvert status --agent` talks to
    #[arg(long, value_name = "DIR", default_value = "/run/culvert-agent")]
    pub run_dir: PathBuf,

    /// Name of this node; `NODE_NAME` in the environment serves too [default: the host name]
    #[arg(long, value_name = "NAME", help_heading = "Identity")]
    pub node_name: Option<NodeName>,

    /// Address of this node under which clients dial it; `NODE_IP` in the environment serves too
    /// (repeatable, or a comma list) [default: this machine's addresses]
    #[arg(
        long,
        value_name = "IP",
        value_delimiter = ',',
        help_heading = "Identity"
    )]
    pub node_ip: Vec<IpAddr>,

    /// Token to enrol with, from `culvert token create`; unneeded once the agent is enrolled
    ///
    /// Every user of this machine can read the command line of a running agent: use --token-file, or
    /// set the token in the environment or the configuration file.
    #[arg(long, value_name = "TOKEN", help_heading = "Identity")]
    pub token: Option<Secret>,

    /// Whether the token stands on the command line.
    #[arg(skip)]
    pub token_is_public: bool,

    /// File that holds the token, or - for standard input; may be deleted once the agent is enrolled
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    pub token_file: Option<PathBuf>,

    /// Hash of the server's CA, from `culvert token create`: the agent enrols with no other server
    #[arg(long, value_name = "sha256:HEX", help_heading = "Identity")]
    pub ca_hash: Option<CaPin>,

    /// Ports of this node that servers may reach besides 10250, 10255 and, in a cluster, those of
    /// --ports-config (repeatable, or a comma list)
    ///
    /// Numbers and ranges, as in 9100,9400-9410. What a server is told to tunnel (its --ports), the
    /// agents have to be told as well: a server that was taken over cannot ask for more.
    #[arg(
        long,
        value_name = "PORTS",
        value_delimiter = ',',
        help_heading = "Targets"
    )]
    pub allow_ports: Vec<PortRange>,

    /// What the agent may dial besides its own node (repeatable, in the environment a list with ';')
    ///
    /// Ports are numbers and ranges, as in 10.0.0.0/8:443,8000-8100; without them all are allowed.
    #[arg(
        long,
        value_name = "CIDR[:PORTS]",
        value_delimiter = ';',
        help_heading = "Targets"
    )]
    pub allow: Vec<AllowedTargets>,

    /// Allow only what --allow names, not this node's own addresses and loopback
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          hide_default_value = true, help_heading = "Targets")]
    pub no_default_targets: bool,

    /// Mark of the agent's own sockets, by which a culvert server on the same machine leaves them
    /// alone
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "0xc17",
        help_heading = "Targets"
    )]
    pub mark: Mark,

    /// Address of /metrics, /healthz and /readyz
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST.into(),
          help_heading = "Meta")]
    pub meta_address: IpAddr,

    /// Port of /metrics, /healthz and /readyz
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 10266,
        help_heading = "Meta"
    )]
    pub meta_port: u16,

    /// How metrics are named.
    #[command(flatten)]
    pub names: MetricNameArgs,

    /// The cluster, where there is one.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// How long the agent's certificate is to be valid, at least 10m; the agent renews it long
    /// before
    ///
    /// The cluster's signer may issue another life, and what the certificate says counts. The server
    /// that approves bounds it by a flag of the same name; without a cluster that flag alone counts.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = positive_duration,
          help_heading = "Kubernetes")]
    pub agent_certificate_ttl: Duration,

    /// How sessions are carried.
    #[command(flatten)]
    pub session: SessionArgs,

    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

impl AgentArgs {
    /// The node's name: as given, or this machine's host name.
    pub fn node_name(&self) -> anyhow::Result<NodeName> {
        node_name(self.node_name.as_ref())
    }

    /// The token to enrol with, from the flag, the file or standard input.
    pub fn token(&self) -> anyhow::Result<Option<JoinToken>> {
        let Some(file) = &self.token_file else {
            let token = self.token.as_ref().map(|token| token.expose().parse());
            return token
                .transpose()
                .context("--token is not one that `culvert token create` printed");
        };
        let text = read_token(file)
            .with_context(|| format!("cannot read --token-file {}", file.display()))?;
        let token = text.trim().parse().with_context(|| {
            format!(
                "--token-file {} holds no token: put the one from `culvert token create` into it",
                file.display()
            )
        })?;
        Ok(Some(token))
    }
}

/// The file's content; of standard input the first line, for whoever writes there may go on doing so.
fn read_token(file: &Path) -> io::Result<String> {
    if file != Path::new("-") {
        return fs::read_to_string(file);
    }
    let input = io::stdin();
    if input.is_terminal() {
        let nobody = "standard input is a terminal: run the lines that `culvert token create` \
                      printed, all three of them";
        return Err(io::Error::other(nobody));
    }
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(line)
}
