//! What netfilter is told: the rules of a control plane that sends connects to nodes elsewhere.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;
use culvert_tests::{NetNs, command};

use crate::case::{NODES, PORT, REDIRECTED_TO};

/// What is in force in a network, besides connection tracking.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Not even connection tracking.
    Nothing,
    /// Nothing.
    Conntrack,
    /// DNAT behind so many RETURN rules, in the old kernel tables. This is how Yurt-Tunnel spares
    /// the nodes that it does not tunnel to.
    Legacy(u32),
    /// The same rules by way of nftables.
    Nft(u32),
    /// One DNAT rule for a set of so many nodes.
    NftSet(u32),
    /// Culvert's programs with so many nodes; the worker loads them.
    Culvert(u32),
    /// The same with 100,000 nodes, and so many Services with ten of them as endpoints each.
    Services(u32),
}

/// Nodes that are not tunnelled to.
const SPARED: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 0);

/// A rule that asks for the state switches connection tracking on.
const CONNTRACK: &str = "
table inet tracking {
    chain input { type filter hook input priority 0; ct state established,related accept; }
    chain output { type filter hook output priority 0; ct state invalid drop; }
}
";

impl Rules {
    /// Puts them in force.
    pub(crate) fn load(self, network: &NetNs) -> Result<()> {
        if self == Self::Nothing {
            return Ok(());
        }
        network.nft(CONNTRACK)?;
        // Ended connections would pile up: connects come much faster here than anywhere else.
        network.sysctl("net.netfilter.nf_conntrack_tcp_timeout_close", "1")?;
        match self {
            Self::Legacy(rules) => restore(network, "iptables-legacy-restore", rules),
            Self::Nft(rules) => restore(network, "iptables-nft-restore", rules),
            Self::NftSet(nodes) => network.nft(&set(nodes)),
            Self::Nothing | Self::Conntrack | Self::Culvert(_) | Self::Services(_) => Ok(()),
        }
    }
}

fn restore(network: &NetNs, program: &str, rules: u32) -> Result<()> {
    let chain = format!("TUNNEL-PORT-{PORT}");
    let port = format!("-p tcp --dport {PORT} -m comment --comment");
    let mut script = format!(
        "*nat\n:TUNNEL-PORT - [0:0]\n:{chain} - [0:0]\n\
         -A OUTPUT -p tcp -m comment --comment \"yurttunnel server port\" -j TUNNEL-PORT\n\
         -A TUNNEL-PORT {port} \"jump to port {PORT}\" -j {chain}\n"
    );
    for spared in addresses(SPARED, rules) {
        let comment = "return request to access node directly";
        let _ = writeln!(
            script,
            "-A {chain} -d {spared}/32 {port} \"{comment}\" -j RETURN"
        );
    }
    let dnat = "dnat to tunnel for access node";
    let _ = writeln!(
        script,
        "-A {chain} {port} \"{dnat}\" -j DNAT --to-destination {REDIRECTED_TO}\nCOMMIT"
    );
    command::output_of(&mut network.command(program), &script).map(drop)
}

fn set(nodes: u32) -> String {
    let elements: Vec<String> = addresses(NODES, nodes).map(|a| a.to_string()).collect();
    let elements = elements.join(", ");
    format!(
        "table ip tunnel {{
            set nodes {{ type ipv4_addr; elements = {{ {elements} }} }}
            chain output {{
                type nat hook output priority -100;
                ip daddr @nodes tcp dport {PORT} dnat to {REDIRECTED_TO}
            }}
        }}"
    )
}

/// So many addresses from `first` on.
pub(crate) fn addresses(first: Ipv4Addr, count: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..count).map(move |i| Ipv4Addr::from_bits(first.to_bits() + i))
}
