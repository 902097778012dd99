//! `culvert agent`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::Context;
use clap::{ArgAction, Args};

use super::{
    ClusterArgs, Secret,
    server::SETTINGS_HELP,
    shared::{ConfigArgs, LogArgs, SessionArgs, node_name},
};
use crate::{
    model::{Mark, NodeName, ServerAddr},
    pki::CaPin,
    standalone::JoinToken,
    tunnel::agent::AllowedTargets,
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
    /// Other users of this machine can read the command line of a running agent: prefer
    /// --token-file for a token that is not spent at once.
    #[arg(long, value_name = "TOKEN", help_heading = "Identity")]
    pub token: Option<Secret>,

    /// File that holds the token; may be deleted once the agent is enrolled
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    pub token_file: Option<PathBuf>,

    /// Hash of the server's CA, from `culvert token create`: the agent enrols with no other server
    #[arg(long, value_name = "sha256:HEX", help_heading = "Identity")]
    pub ca_hash: Option<CaPin>,

    /// What the agent may dial besides this node's own addresses and loopback (repeatable, in the
    /// environment a list with ';')
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

    /// The cluster, where there is one.
    #[command(flatten)]
    pub cluster: ClusterArgs,

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

    /// The token to enrol with, from the flag or the file.
    pub fn token(&self) -> anyhow::Result<Option<JoinToken>> {
        let Some(file) = &self.token_file else {
            let token = self.token.as_ref().map(|token| token.expose().parse());
            return token
                .transpose()
                .context("--token is not one that `culvert token create` printed");
        };
        let text = std::fs::read_to_string(file)
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
