//! `yurt-tunnel-server`.

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{
    SWITCH,
    klog::KlogFlags,
    translation::Translation,
    values::{boolean, ip, items, loopback, non_empty, port},
};

const CERT_DIR: &str = "/var/lib/yurttunnel-server/pki";

/// The flags of Yurt-Tunnel's server.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerFlags {
    /// Print the version and exit [default: false]
    #[arg(long, value_name = SWITCH, value_parser = boolean)]
    pub(super) version: Option<bool>,

    /// Kubeconfig of the cluster; empty: the service account of this pod
    #[arg(long, value_name = "FILE")]
    kube_config: Option<String>,

    /// Address at which agents, and clients of --secure-port, are received [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    bind_address: Option<String>,

    /// Address of --insecure-port and --meta-port; empty: loopback, of --bind-address's family
    #[arg(long, value_name = "IP")]
    insecure_bind_address: Option<String>,

    /// Port on which agents are received [default: 10262]
    #[arg(long, value_name = "PORT")]
    tunnel_agent_connect_port: Option<String>,

    /// Port for clients that name a node by TLS [default: 10263]
    #[arg(long, value_name = "PORT")]
    secure_port: Option<String>,

    /// Port for HTTP requests [default: 10264]
    #[arg(long, value_name = "PORT")]
    insecure_port: Option<String>,

    /// Port of /metrics, /healthz and /readyz [default: 10265]
    #[arg(long, value_name = "PORT")]
    meta_port: Option<String>,

    /// Names that the server's certificate carries besides those of the Services: a comma list
    #[arg(long, value_name = "NAMES")]
    cert_dns_names: Option<String>,

    /// Addresses that it names besides those: a comma list
    #[arg(long, value_name = "IPS")]
    cert_ips: Option<String>,

    /// Directory whose subdirectory `culvert` holds certificates and what is known of the cluster; Yurt-Tunnel's own
    /// files in it are not used [default: /var/lib/yurttunnel-server/pki]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<String>,

    /// Whether connects to nodes' addresses are captured, by the kernel programs; iptables are left alone [default:
    /// true]
    #[arg(long, value_name = SWITCH, value_parser = boolean)]
    enable_iptables: Option<bool>,

    /// Ignored: changes are followed at once [default: 60]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    iptables_sync_period: Option<i64>,

    /// Whether the nodes' DNS records and the internal Service's ports are kept [default: true]
    #[arg(long, value_name = SWITCH, value_parser = boolean)]
    enable_dns_controller: Option<bool>,

    /// Ignored: changes are followed at once [default: 1800]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    dns_sync_period: Option<i64>,

    /// Refused if it is true, as by Yurt-Tunnel [default: false]
    #[arg(long, value_name = SWITCH, value_parser = boolean)]
    egress_selector_enable: Option<bool>,

    /// Ignored: servers count themselves [default: 1]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    server_count: Option<i64>,

    /// destHost, or default, which means the same here [default: destHost]
    #[arg(long, value_name = "STRATEGY")]
    proxy_strategy: Option<String>,

    #[command(flatten)]
    klog: KlogFlags,
}

impl ServerFlags {
    pub(super) fn translate(self) -> anyhow::Result<Translation> {
        let mut server = Translation::to("server");
        self.addresses(&mut server)?;
        self.certificate(&mut server)?;
        let kubeconfig = non_empty(self.kube_config.as_ref());
        server.set_if("kubeconfig", kubeconfig);
        // Where the pods of its manifests are, whoever is asked.
        server.by_default("lease-namespace", "kube-system");
        // yurt-manager does, and this server's account mostly may not.
        server.by_default("approve-certificates", false);
        server.set_if("redirect", self.enable_iptables);
        server.set_if("publish-names", self.enable_dns_controller);
        self.refusals(&mut server)?;
        self.klog.translate(&mut server);
        Ok(server)
    }

    fn addresses(&self, server: &mut Translation) -> anyhow::Result<()> {
        ensure!(
            self.bind_address.as_deref() != Some(""),
            "--bind-address is empty: give an address of this machine, or 0.0.0.0 for all of them, or leave it out"
        );
        let bind = ip("bind-address", self.bind_address.as_ref())?;
        let insecure = ip("insecure-bind-address", self.insecure_bind_address.as_ref())?;
        server.set_if("bind-address", bind);
        if let Some(own) = bind.filter(|ip| !ip.is_unspecified()) {
            server.by_default("relay-address", own);
        }
        let by_default = loopback(bind);
        server.set_or("http-address", insecure, by_default);
        server.set_or("meta-address", insecure, by_default);
        for (flag, given, means) in [
            (
                "tunnel-agent-connect-port",
                &self.tunnel_agent_connect_port,
                "agent-port",
            ),
            ("secure-port", &self.secure_port, "https-port"),
            ("insecure-port", &self.insecure_port, "http-port"),
            ("meta-port", &self.meta_port, "meta-port"),
        ] {
            server.set_if(means, port(flag, given.as_ref())?);
        }
        Ok(())
    }

    fn certificate(&self, server: &mut Translation) -> anyhow::Result<()> {
        let directory = non_empty(self.cert_dir.as_ref()).map(|dir| format!("{dir}/culvert"));
        server.set_or("state-dir", directory, format_args!("{CERT_DIR}/culvert"));
        for name in items(self.cert_dns_names.as_ref()) {
            server.set("cert-dns-names", name);
        }
        for item in items(self.cert_ips.as_ref()) {
            let ip: IpAddr = item.parse().with_context(|| {
                format!(
                    "--cert-ips: {item:?} is not an address: correct it, or put it into --cert-dns-names if it is a \
                     name (Yurt-Tunnel leaves it out without a word)"
                )
            })?;
            server.set("cert-ips", ip);
        }
        Ok(())
    }

    /// What Yurt-Tunnel takes and culvert has no use for, or neither of them.
    fn refusals(&self, server: &mut Translation) -> anyhow::Result<()> {
        ensure!(
            self.egress_selector_enable != Some(true),
            "--egress-selector-enable=true: kube-apiserver's egress selector is not served, by Yurt-Tunnel neither: \
             leave the flag out; what kube-apiserver connects to edge nodes is captured on its machine without it"
        );
        match self.proxy_strategy.as_deref() {
            None | Some("destHost") => {}
            Some("default") => server.ignore(
                "--proxy-strategy=default",
                "a client is carried by its own node's agent, as with destHost",
            ),
            Some(other) => bail!(
                "--proxy-strategy {other:?} is unknown: use destHost, or leave it out (Yurt-Tunnel serves nobody then)"
            ),
        }
        let follows = "the kernel's tables follow nodes and ports at once";
        server.ignore_if("iptables-sync-period", self.iptables_sync_period, follows);
        let follows = "records and ports follow nodes and the ConfigMap at once";
        server.ignore_if("dns-sync-period", self.dns_sync_period, follows);
        let other = self.server_count.filter(|count| *count != 1);
        let counted = "servers are counted by their Leases, and tell agents whenever that changes";
        server.ignore_if("server-count", other, counted);
        Ok(())
    }
}
