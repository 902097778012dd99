//! `yurt-tunnel-agent`.

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use http::uri::Authority;

use super::{
    SWITCH,
    klog::KlogFlags,
    translation::Translation,
    values::{boolean, ip, loopback, non_empty, port},
};
use crate::{
    cli::Environment,
    model::{NodeName, ServerAddr},
};

const CERT_DIR: &str = "/var/lib/yurttunnel-agent/pki";
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// What Yurt-Tunnel's agent has its certificate made out to.
const POD_IP: &str = "POD_IP";

/// The flags of Yurt-Tunnel's agent.
#[derive(Args, Clone, Debug)]
pub(super) struct AgentFlags {
    /// Print the version and exit [default: false]
    #[arg(long, value_name = SWITCH, value_parser = boolean)]
    pub(super) version: Option<bool>,

    /// Name of this node; empty: `NODE_NAME` in the environment
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,

    /// Address of this node; empty: `NODE_IP` in the environment
    #[arg(long, value_name = "IP")]
    node_ip: Option<String>,

    /// The server, as HOST:PORT; empty: what the Service of the servers leads to
    #[arg(long, value_name = "HOST:PORT")]
    tunnelserver_addr: Option<String>,

    /// The API server, as HOST:PORT, for the service account of this pod; --kube-config comes first
    #[arg(long, value_name = "HOST:PORT")]
    apiserver_addr: Option<String>,

    /// Kubeconfig of the cluster; without it and --apiserver-addr: /etc/kubernetes/kubelet.conf
    #[arg(long, value_name = "FILE")]
    kube_config: Option<String>,

    /// `host=NAME`, `ipv4=IP`, `ipv6=IP`: what --node-name and --node-ip say, for an agent is who its certificate says
    #[arg(long, value_name = "IDENTIFIERS")]
    agent_identifiers: Option<String>,

    /// Address of --meta-port; empty: loopback, of --node-ip's family
    #[arg(long, value_name = "IP")]
    meta_host: Option<String>,

    /// Port of /metrics, /healthz and /readyz [default: 10266]
    #[arg(long, value_name = "PORT")]
    meta_port: Option<String>,

    /// Directory whose subdirectory `culvert` holds the certificate and what is known of the cluster; Yurt-Tunnel's own
    /// files in it are not used [default: /var/lib/yurttunnel-agent/pki]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<String>,

    #[command(flatten)]
    klog: KlogFlags,
}

/// Who the agent is.
struct Identity {
    name: NodeName,
    ip: IpAddr,
}

impl AgentFlags {
    pub(super) fn translate(self, environment: &Environment) -> anyhow::Result<Translation> {
        let mut agent = Translation::to("agent");
        let identity = self.identity(environment)?;
        agent.set("node-name", &identity.name);
        agent.set("node-ip", identity.ip);
        identifiers(self.agent_identifiers.as_ref(), &identity, &mut agent)?;
        let pod_ip = environment.other(POD_IP).map(str::to_owned);
        if pod_ip.is_some_and(|ip| ip.parse() != Ok(identity.ip)) {
            let instead = "the certificate names --node-ip";
            agent.ignore(format!("{POD_IP} in the environment"), instead);
        }
        self.cluster(&mut agent)?;
        let meta = ip("meta-host", self.meta_host.as_ref())?;
        agent.set_or("meta-address", meta, loopback(Some(identity.ip)));
        agent.set_if("meta-port", port("meta-port", self.meta_port.as_ref())?);
        let directory = non_empty(self.cert_dir.as_ref()).map(|dir| format!("{dir}/culvert"));
        agent.set_or("state-dir", directory, format_args!("{CERT_DIR}/culvert"));
        self.klog.translate(&mut agent);
        Ok(agent)
    }

    fn identity(&self, environment: &Environment) -> anyhow::Result<Identity> {
        let said = |given: Option<&String>, flag: &str, variable: &str| {
            let text = match non_empty(given) {
                Some(text) => Some((format!("--{flag}"), text.to_owned())),
                None => environment.text_of(flag),
            };
            text.with_context(|| {
                format!("neither --{flag} nor {variable} says who this node is: set one of them")
            })
        };
        let (source, name) = said(self.node_name.as_ref(), "node-name", "NODE_NAME")?;
        let name = name
            .parse()
            .with_context(|| format!("{source} {name:?}: give the name of the Node object"))?;
        let (source, ip) = said(self.node_ip.as_ref(), "node-ip", "NODE_IP")?;
        let ip = ip.parse().with_context(|| {
            format!("{source} {ip:?}: give one address, as the Node object has it")
        })?;
        Ok(Identity { name, ip })
    }

    fn cluster(&self, agent: &mut Translation) -> anyhow::Result<()> {
        if let Some(text) = non_empty(self.tunnelserver_addr.as_ref()) {
            let server: ServerAddr = text
                .parse()
                .with_context(|| format!("--tunnelserver-addr {text}"))?;
            agent.set("server", server);
        }
        let kubeconfig = non_empty(self.kube_config.as_ref());
        let api_server = non_empty(self.apiserver_addr.as_ref());
        match (kubeconfig, api_server) {
            (Some(file), None) => agent.set("kubeconfig", file),
            (Some(file), Some(api_server)) => {
                agent.set("kubeconfig", file);
                let instead = "--kube-config names an API server, and comes first";
                agent.ignore(format!("--apiserver-addr={api_server}"), instead);
            }
            (None, Some(text)) => {
                let api_server: Authority = text.parse().with_context(|| {
                    format!("--apiserver-addr {text}: give host and port, as in 192.0.2.1:6443")
                })?;
                agent.set("api-server", api_server);
            }
            (None, None) => agent.by_default("kubeconfig", KUBECONFIG),
        }
        Ok(())
    }
}

/// Yurt-Tunnel checks them by commas and reads them by `&`; either is taken. What they say must be true.
fn identifiers(
    given: Option<&String>,
    Identity { name, ip }: &Identity,
    agent: &mut Translation,
) -> anyhow::Result<()> {
    let Some(given) = non_empty(given) else {
        return Ok(());
    };
    for item in given.split([',', '&']) {
        let parts = item.split_once('=');
        let (kind, value) = parts.with_context(|| {
            format!("--agent-identifiers: {item:?} is none: write host=NAME, ipv4=IP or ipv6=IP, or leave it out")
        })?;
        let (flag, is_own) = match kind {
            "host" => ("node-name", value == name.as_str()),
            "ipv4" | "ipv6" => ("node-ip", value.parse() == Ok(*ip)),
            "cidr" => {
                let instead = "nodes are found by name and address, by Yurt-Tunnel too";
                agent.ignore(format!("--agent-identifiers={item}"), instead);
                continue;
            }
            other => bail!(
                "--agent-identifiers: {other:?} is of no use to anybody: write host=NAME, ipv4=IP or ipv6=IP, or leave \
                 the flag out"
            ),
        };
        ensure!(
            is_own,
            "--agent-identifiers: {item} is not what --{flag} says, and an agent is who its certificate says: correct \
             one of the two, or leave --agent-identifiers out"
        );
    }
    Ok(())
}
