//! What is compared: how each is installed, and which processes it is.

use std::path::Path;

use anyhow::Result;
use culvert_tests::cluster::Cluster;

use culvert_tests::cluster::yurt_tunnel;

/// One of the two.
pub(crate) struct Tunnel {
    pub(crate) name: &'static str,
    /// Installs it as its manual says; returns what a person had to do besides `kubectl apply`.
    pub(crate) install: fn(&Cluster) -> Result<Vec<String>>,
    /// What its administrator does from time to time; returns how much there was to do.
    pub(crate) tend: fn(&Cluster) -> Result<usize>,
    server: &'static [&'static str],
    agent: &'static [&'static str],
}

/// In the order of their columns.
pub(crate) const TUNNELS: &[Tunnel] = &[
    Tunnel {
        name: "Yurt-Tunnel 1.5.0",
        install: yurt_tunnel::install,
        tend: yurt_tunnel::approve_pending,
        server: &[yurt_tunnel::SERVER],
        agent: &[yurt_tunnel::AGENT],
    },
    Tunnel {
        name: concat!("Culvert ", env!("CARGO_PKG_VERSION")),
        install: install_culvert,
        tend: |_| Ok(0),
        server: &["culvert", "server"],
        agent: &["culvert", "agent"],
    },
];

fn install_culvert(cluster: &Cluster) -> Result<Vec<String>> {
    cluster.install_culvert()?;
    Ok(Vec::new())
}

impl Tunnel {
    /// The pid of the server on the control plane.
    pub(crate) fn server(&self, cluster: &Cluster) -> Result<u32> {
        process(cluster.lab().control().name(), self.server)
    }

    /// The pid of the agent on the first edge.
    pub(crate) fn agent(&self, cluster: &Cluster) -> Result<u32> {
        process(cluster.lab().edge(0).namespace().name(), self.agent)
    }
}

/// The process in a namespace whose command line begins with these words, the first without its directory.
fn process(namespace: &str, words: &[&str]) -> Result<u32> {
    let pids = culvert_tests::command::run("ip", ["netns", "pids", namespace])?;
    let mut pids = pids.lines().filter_map(|pid| pid.trim().parse().ok());
    pids.find(|pid| begins_with(*pid, words))
        .ok_or_else(|| anyhow::anyhow!("no {} runs in {namespace}", words.join(" ")))
}

fn begins_with(pid: u32, words: &[&str]) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut args = line.split('\0');
    let program = args
        .next()
        .and_then(|program| Path::new(program).file_name());
    program.is_some_and(|program| program == words[0])
        && words[1..].iter().all(|word| args.next() == Some(word))
}
