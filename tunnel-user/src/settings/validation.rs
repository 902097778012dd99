//! Rules between flags: each error names the flags and the way out.

use std::{net::IpAddr, time::Duration};

use anyhow::{bail, ensure};
use humantime::format_duration;

use super::{AgentArgs, ClusterArgs, ServerArgs};
use crate::kubernetes::SERVER_NODE_NAME;

/// The API server refuses a request for less
/// (<https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/certificate-signing-request-v1/>).
const SHORTEST_REQUEST: Duration = Duration::from_mins(10);

impl ServerArgs {
    /// Checks what no flag can check alone.
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        ensure!(
            self.probe_dir.as_ref() != Some(&self.run_dir),
            "--probe-dir and --run-dir are the same directory: give them two"
        );
        check_redirect_addresses(&self.redirect_address)?;
        self.kubernetes.cluster.validate()?;
        ensure!(
            !self.kubernetes.relay_only || self.kubernetes.cluster.kubernetes,
            "--relay-only has no meaning without --kubernetes, for a server finds others by their Leases: add it, or leave \
             --relay-only out"
        );
        self.validate_termination()?;
        ensure!(
            !self
                .kubernetes
                .cert_dns_names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(SERVER_NODE_NAME)),
            "--cert-dns-names {SERVER_NODE_NAME}: agents take no server whose certificate has this \
             name, for a kubelet's could; choose another name"
        );
        let redirect_port = self.redirect_port.get();
        if self
            .tunnel_ports()
            .iter()
            .any(|port| port.number() == redirect_port)
        {
            bail!(
                "--redirect-port {redirect_port} is among the tunnelled ports: \
                 choose another --redirect-port or take it out of --ports"
            );
        }
        ensure!(
            self.http_port().is_some()
                || (self.http_allow_cidrs.is_empty() && self.http_address.is_none()),
            "--http-allow-cidrs and --http-address have no meaning without --http-port: give one, or leave them out"
        );
        let own_ports = self.own_ports();
        for port in &self.kubernetes.kubelet_ports {
            for (flag, own) in own_ports.iter().copied() {
                ensure!(
                    port.number() != own,
                    "--kubelet-ports names {port}, which is {flag}: choose another {flag}, or take \
                     it out of --kubelet-ports"
                );
            }
        }
        distinct(&own_ports)
    }
}

impl AgentArgs {
    /// Checks what no flag can check alone.
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        self.cluster.validate()?;
        if self.cluster.kubernetes {
            ensure!(
                self.token.is_none() && self.token_file.is_none() && self.ca_hash.is_none(),
                "--token, --token-file and --ca-hash have no meaning with --kubernetes, where the \
                 cluster signs the certificate: leave them out"
            );
            ensure!(
                self.agent_certificate_ttl >= SHORTEST_REQUEST,
                "--agent-certificate-ttl {} is shorter than a cluster signs: give at least 10m",
                format_duration(self.agent_certificate_ttl)
            );
        } else {
            ensure!(
                !self.server.is_empty(),
                "--server is missing: give the address of the server, as in the line that \
                 `culvert token create` prints there; or --kubernetes, if a cluster knows it"
            );
        }
        ensure!(
            self.token.is_none() || self.token_file.is_none(),
            "--token and --token-file are both set: give one of them"
        );
        ensure!(
            self.ca_hash.is_some() || (self.token.is_none() && self.token_file.is_none()),
            "--ca-hash is missing: without it the token could go to a stranger; take it from the \
             line that `culvert token create` printed"
        );
        ensure!(
            !self.no_default_targets || !self.allow.is_empty(),
            "--no-default-targets without --allow leaves nothing to dial: add --allow CIDR[:PORTS]"
        );
        ensure!(
            !self.no_default_targets || self.allow_ports.is_empty(),
            "--allow-ports is about this node itself, which --no-default-targets excludes: name \
             the ports in --allow, as in 127.0.0.1/32:9100, or leave one of the two out"
        );
        check_node_addresses(&self.node_ip)
    }
}

impl ClusterArgs {
    fn validate(&self) -> anyhow::Result<()> {
        ensure!(
            self.kubernetes
                || (self.kubeconfig.is_none()
                    && self.cert_dir.is_none()
                    && self.api_server.is_none()),
            "--kubeconfig, --api-server and --cert-dir have no meaning without --kubernetes: add it, or leave them out"
        );
        ensure!(
            self.kubeconfig.is_none() || self.api_server.is_none(),
            "--api-server is for the service account of a pod, and --kubeconfig names an API server itself: leave one of \
             the two out"
        );
        Ok(())
    }
}

fn check_redirect_addresses(addresses: &[IpAddr]) -> anyhow::Result<()> {
    for ip in addresses {
        ensure!(
            !ip.is_unspecified() && !ip.is_multicast(),
            "--redirect-address {ip} is not an address that a client can be sent to: give one of \
             this machine's own"
        );
    }
    for (family, is_of_family) in [
        ("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
        ("IPv6", IpAddr::is_ipv6),
    ] {
        ensure!(
            addresses.iter().filter(|ip| is_of_family(ip)).count() <= 1,
            "--redirect-address is given twice for {family}: give at most one of each family"
        );
    }
    Ok(())
}

fn check_node_addresses(addresses: &[IpAddr]) -> anyhow::Result<()> {
    for ip in addresses {
        ensure!(
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback(),
            "--node-ip {ip} is not an address under which clients dial this node: give the one \
             that the control plane knows"
        );
    }
    Ok(())
}

/// Port 0 stands for any free port, and never collides.
fn distinct(ports: &[(&str, u16)]) -> anyhow::Result<()> {
    for (i, (flag, port)) in ports.iter().enumerate() {
        for (other, same) in &ports[i + 1..] {
            ensure!(
                *port == 0 || port != same,
                "{flag} and {other} are both {port}: choose different ports"
            );
        }
    }
    Ok(())
}
