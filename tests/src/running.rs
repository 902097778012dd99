//! A site with its server and agents up: where most end-to-end tests begin.

use anyhow::{Context as _, Result};

use crate::report::{Connects, parse};
use crate::site::PATIENCE;
use crate::{Daemon, Lab, Launch, NetNs, Site, programs};

/// Server and agents; the edge node of number n is the node `edge-<n+1>`.
#[derive(Debug)]
pub struct Running {
    /// The agents, by number.
    pub agents: Vec<Daemon>,
    /// The server.
    pub server: Daemon,
    /// Where they run.
    pub site: Site,
}

impl Running {
    /// One edge node and one pod, everything by default.
    pub fn start() -> Result<Self> {
        Self::start_with(1, |server| server)
    }

    /// So many edge nodes, and a server with more flags.
    pub fn start_with(edges: u8, more: impl FnOnce(Launch) -> Launch) -> Result<Self> {
        let mut lab = Lab::nat_with(edges)?;
        lab.add_pod()?;
        let site = Site::new(lab)?;
        let server = more(site.server()).start()?;
        site.wait_for_server()
            .with_context(|| format!("it said:\n{}", server.output()))?;
        let mut running = Self {
            agents: Vec::new(),
            server,
            site,
        };
        for edge in 0..usize::from(edges) {
            let join = running.site.token(&name(edge), edge)?;
            running
                .agents
                .push(running.site.agent(edge, &join).start()?);
        }
        for edge in 0..usize::from(edges) {
            running.wait_for_session(edge)?;
        }
        Ok(running)
    }

    /// Waits until the server has a session with the node.
    pub fn wait_for_session(&self, edge: usize) -> Result<()> {
        self.site
            .wait_for_session(&name(edge), true)
            .with_context(|| self.said())
    }

    /// Waits until the server has no session with the node.
    pub fn wait_for_no_session(&self, edge: usize) -> Result<()> {
        self.site
            .wait_for_session(&name(edge), false)
            .with_context(|| self.said())
    }

    /// Starts the agent of that number again, with the identity that it has.
    pub fn restart_agent(&mut self, edge: usize) -> Result<()> {
        let join = format!(
            "culvert agent --server 10.77.0.1:10262 --node-name {}",
            name(edge)
        );
        self.agents[edge] = self.site.agent(edge, &join).start()?;
        self.wait_for_session(edge)
    }

    /// A `probe echo` on the edge node; more flags after its port.
    pub fn serve(&self, edge: usize, port: u16, more: &str) -> Result<Daemon> {
        let edge = self.site.lab().edge(edge);
        let line = format!("echo --seconds 300 --bind {}:{port} {more}", edge.ipv4());
        let mut server = Launch::new(edge.namespace(), programs::probe()?)
            .words(&line)
            .start()?;
        server.wait_for_line("listening", PATIENCE)?;
        Ok(server)
    }

    /// A captured `probe` on the control plane.
    pub fn probe(&self, line: &str) -> Result<Daemon> {
        self.probe_in(self.site.lab().control(), line)
    }

    /// A captured `probe` in that namespace.
    pub fn probe_in(&self, namespace: &NetNs, line: &str) -> Result<Daemon> {
        self.site
            .client(namespace, programs::probe()?)
            .words(line)
            .start()
    }

    /// Runs a captured `probe connect` on the control plane.
    pub fn connect(&self, line: &str) -> Result<Connects> {
        parse(
            &self
                .probe(&format!("connect {line}"))?
                .succeed(PATIENCE * 3)?,
        )
    }

    /// What server and agents said, for the message of a failure.
    pub fn said(&self) -> String {
        let agents = self.agents.iter().map(Daemon::output).collect::<String>();
        format!(
            "the server said:\n{}the agents said:\n{agents}",
            self.server.output()
        )
    }
}

fn name(edge: usize) -> String {
    format!("edge-{}", edge + 1)
}
