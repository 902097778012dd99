//! The ports of a server: those at which it listens, and those that it tunnels.

use ipnet::IpNet;

use super::{LoopbackPortClients, ServerArgs};
use crate::model::{HTTP_PORT, HTTPS_PORT, PortSet, TunnelPort};

impl ServerArgs {
    /// The port for clients that name a node's kubelet by TLS, where there is one.
    pub fn https_port(&self) -> Option<u16> {
        let port = self.https_port.unwrap_or(self.by_name(HTTPS_PORT));
        (port != 0).then_some(port)
    }

    /// Where HTTP requests are received, if they are.
    pub fn http_port(&self) -> Option<u16> {
        let port = self.http_port.unwrap_or(self.by_name(HTTP_PORT));
        (port != 0).then_some(port)
    }

    /// Who may send them, where flags say so: who may not use the redirect gets in by no other way.
    pub fn http_networks(&self) -> Option<Vec<IpNet>> {
        if !self.http_allow_cidrs.is_empty() {
            Some(self.http_allow_cidrs.clone())
        } else if !self.clients.is_empty() {
            Some(self.client_networks())
        } else {
            None
        }
    }

    /// Whether ports that lead to a node's loopback are for this machine's own processes.
    pub fn guards_loopback_ports(&self) -> bool {
        self.loopback_port_clients == LoopbackPortClients::Host
    }

    /// The ports that the server listens on, by the flag that names each.
    pub fn own_ports(&self) -> Vec<(&'static str, u16)> {
        let agents = (!self.kubernetes.relay_only).then_some(self.agent_port);
        let own = [
            ("--agent-port", agents),
            ("--redirect-port", Some(self.redirect_port.get())),
            ("--meta-port", Some(self.meta_port)),
            ("--https-port", self.https_port()),
            ("--http-port", self.http_port()),
        ];
        let own = own.into_iter();
        own.filter_map(|(flag, port)| Some((flag, port?))).collect()
    }

    /// The same, as ports that are never tunnelled.
    pub fn own_port_set(&self) -> PortSet {
        let own = self.own_ports().into_iter();
        own.filter_map(|(_, port)| TunnelPort::new(port)).collect()
    }

    /// All tunnelled ports: the kubelet's two and those that were asked for.
    pub fn tunnel_ports(&self) -> PortSet {
        [TunnelPort::KUBELET, TunnelPort::KUBELET_READ_ONLY]
            .into_iter()
            .chain(self.ports.iter().copied())
            .collect()
    }

    /// A port for clients that name nodes, by default: they dial a Service of the cluster, which leads to servers that
    /// take agents.
    fn by_name(&self, port: u16) -> u16 {
        let kubernetes = &self.kubernetes;
        if kubernetes.cluster.kubernetes && !kubernetes.relay_only {
            port
        } else {
            0
        }
    }
}
