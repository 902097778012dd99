//! The NAT between the control plane and the edge nodes.

use anyhow::Result;

use super::{Edge, ROUTER, join};
use crate::NetNs;

/// Connections may begin at the edge only; what begins elsewhere is dropped, as a home router does.
const RULES: &str = r#"
table inet culvert_nat {
    chain outward { type nat hook postrouting priority 100; oifname "north" masquerade; }
    chain inward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "edge*" accept
    }
    set cut { type ifname; }
    chain cut_in { type filter hook prerouting priority -300; iifname @cut drop; }
    chain cut_out { type filter hook postrouting priority 300; oifname @cut drop; }
}
"#;

#[derive(Debug)]
pub(super) struct Router {
    namespace: NetNs,
}

impl Router {
    pub(super) fn new(control: &NetNs) -> Result<Self> {
        let namespace = NetNs::new("router")?;
        join(control, "eth0", &namespace, "north")?;
        control.ip("addr add 10.77.0.1/24 dev eth0")?;
        control.ip("addr add fd00:77::1/64 dev eth0 nodad")?;
        let [ipv4, ipv6] = ROUTER;
        namespace.ip(&format!("addr add {ipv4}/24 dev north"))?;
        namespace.ip(&format!("addr add {ipv6}/64 dev north nodad"))?;
        namespace.sysctl("net.ipv4.ip_forward", "1")?;
        namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        namespace.nft(RULES)?;
        Ok(Self { namespace })
    }

    pub(super) fn of_another(namespace: NetNs) -> Self {
        Self { namespace }
    }

    pub(super) fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    pub(super) fn namespace_mut(&mut self) -> &mut NetNs {
        &mut self.namespace
    }

    /// Every edge has a cable of its own and shares the router's address on it.
    pub(super) fn join(&self, edge: &Edge) -> Result<()> {
        let port = port(edge);
        join(edge.namespace(), "eth0", &self.namespace, &port)?;
        self.namespace
            .ip(&format!("addr add 10.78.0.1/32 dev {port}"))?;
        self.namespace
            .ip(&format!("addr add fd00:78::1/128 dev {port} nodad"))?;
        self.routes_to(edge)?;
        let inside = edge.namespace();
        inside.ip(&format!("addr add {}/24 dev eth0", edge.ipv4()))?;
        inside.ip(&format!("addr add {}/64 dev eth0 nodad", edge.ipv6()))?;
        inside.ip("route add 10.77.0.0/24 via 10.78.0.1")?;
        inside.ip("route add fd00:77::/64 via fd00:78::1").map(drop)
    }

    pub(super) fn black_hole(&self, edge: &Edge) -> Result<()> {
        self.namespace.nft(&format!(
            "add element inet culvert_nat cut {{ {} }}",
            port(edge)
        ))
    }

    pub(super) fn unplug(&self, edge: &Edge) -> Result<()> {
        self.namespace
            .ip(&format!("link set {} down", port(edge)))
            .map(drop)
    }

    pub(super) fn restore(&self, edge: &Edge) -> Result<()> {
        let port = port(edge);
        // Adding first makes deleting an element that was not there no error.
        self.namespace.nft(&format!(
            "add element inet culvert_nat cut {{ {port} }}\n\
             delete element inet culvert_nat cut {{ {port} }}"
        ))?;
        self.namespace.ip(&format!("link set {port} up"))?;
        self.namespace
            .ip(&format!("addr replace fd00:78::1/128 dev {port} nodad"))?;
        self.routes_to(edge)
    }

    fn routes_to(&self, edge: &Edge) -> Result<()> {
        let port = port(edge);
        self.namespace
            .ip(&format!("route replace {}/32 dev {port}", edge.ipv4()))?;
        self.namespace
            .ip(&format!("route replace {}/128 dev {port}", edge.ipv6()))
            .map(drop)
    }
}

fn port(edge: &Edge) -> String {
    format!("edge{}", edge.number)
}
