//! A control plane and its edge nodes, on which server and agents are started.

mod clients;
mod figures;
pub(crate) mod http;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use culvert_tests::lab::CONTROL;
use culvert_tests::{Daemon, Lab, Launch, NetNs, Site, link, scale, until};
use tunnel_user::observability::status::StatusReport;

pub(crate) use clients::{RESET, accept};
pub(crate) use figures::{open_files, resident_kib};

/// "At once", on a machine that does much else.
pub(crate) fn at_once() -> Duration {
    scale::patience(Duration::from_secs(1))
}

/// How long anything may take on a machine that does much else; no test waits it out.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// The first edge node as clients dial it.
pub(crate) const NODE: &str = "10.78.0.11:10250";
pub(crate) const NODE_V6: &str = "[fd00:78::11]:10250";
/// Another tunnelled port of the same node.
pub(crate) const OTHER: &str = "10.78.0.11:10255";

/// Where a test takes place. Programs are the tests' own and end before it.
pub(crate) struct Stage {
    pub(crate) site: Site,
    connections: AtomicU32,
}

impl Stage {
    /// One edge node.
    pub(crate) fn new() -> Self {
        Self::in_lab(Lab::nat().unwrap())
    }

    pub(crate) fn with_edges(edges: u8) -> Self {
        Self::in_lab(Lab::nat_with(edges).unwrap())
    }

    /// One edge node, and a pod beside the control plane.
    pub(crate) fn with_pod() -> Self {
        let mut lab = Lab::nat().unwrap();
        lab.add_pod().unwrap();
        Self::in_lab(lab)
    }

    fn in_lab(lab: Lab) -> Self {
        Self {
            site: Site::new(lab).unwrap(),
            connections: AtomicU32::new(0),
        }
    }

    pub(crate) fn lab(&self) -> &Lab {
        self.site.lab()
    }

    pub(crate) fn control(&self) -> &NetNs {
        self.lab().control()
    }

    /// The first edge node.
    pub(crate) fn edge(&self) -> &NetNs {
        self.lab().edge(0).namespace()
    }

    /// A file or directory of this stage.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.site.directory().join(name)
    }

    /// Server and agent of the first edge node, with a session between them. Both get more flags.
    pub(crate) fn culvert(&self, server: &str, agent: &str) -> (Daemon, Daemon) {
        let server = self.server(server);
        let agent = self.agent(0, agent);
        (server, agent)
    }

    /// A server that takes clients.
    pub(crate) fn server(&self, flags: &str) -> Daemon {
        self.ready(&self.site.server().words(flags))
    }

    /// Starts a server and waits until it takes clients.
    pub(crate) fn ready(&self, server: &Launch) -> Daemon {
        let mut server = server.start().unwrap();
        server.wait_for_line("redirecting", PATIENCE).unwrap();
        self.until("the server is ready", |status| {
            let own = status.pid == server.pid();
            own && status.conditions.iter().all(|condition| condition.ready)
        });
        server
    }

    /// An agent with a fresh token, and a session.
    pub(crate) fn agent(&self, edge: usize, flags: &str) -> Daemon {
        let join = self.token(edge, "");
        self.up(edge, &format!("{join} {flags}"))
    }

    /// An agent that has enrolled before, and gets a session again.
    pub(crate) fn agent_again(&self, edge: usize, flags: &str) -> Daemon {
        self.up(edge, &format!("{} {flags}", without_token(edge)))
    }

    /// Starts an agent and waits for its session.
    pub(crate) fn up(&self, edge: usize, command: &str) -> Daemon {
        let mut agent = self.site.agent(edge, command).start().unwrap();
        agent
            .wait_for_line("session established", PATIENCE)
            .unwrap();
        self.until_connected(edge, true);
        agent
    }

    /// A link from the first edge to the server that takes so many milliseconds each way, for [`over_long_link`].
    pub(crate) fn long_link(&self, delay_ms: u64) -> Daemon {
        let (near, far) = ([127, 0, 0, 1].into(), CONTROL[0]);
        let [near, far] = [near, far].map(|address| SocketAddr::new(address, 10262));
        link::start(self.edge(), near, far, Duration::from_millis(delay_ms)).unwrap()
    }

    /// The command that `culvert token create` tells to run on the edge.
    pub(crate) fn token(&self, edge: usize, flags: &str) -> String {
        self.site.token_with(&node(edge), edge, flags).unwrap()
    }

    /// Runs a command on the server's state that ends by itself; an error is what it said.
    pub(crate) fn manage(&self, line: &str) -> Result<String, String> {
        let state = self.site.server_state();
        let command = self.site.culvert().words(line);
        end_of(&command.arg("--state-dir").arg(state))
    }

    /// A server program on the first edge.
    pub(crate) fn target(&self, flags: &str) -> Daemon {
        let line = format!("echo --seconds 300 {flags}");
        let mut target = self.probe(self.edge(), &line).start().unwrap();
        target.wait_for_line("listening", PATIENCE).unwrap();
        target
    }

    /// A socket that listens on the first edge, for the test to be the target itself.
    pub(crate) fn listen(&self, to: &str) -> TcpListener {
        self.edge().run(|| TcpListener::bind(to)).unwrap()
    }

    /// Waits until the server's status is as wanted.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&StatusReport) -> bool) {
        until(what, PATIENCE, || {
            let status = serde_json::from_value(self.site.status()?)?;
            Ok(wanted(&status).then_some(()))
        })
        .unwrap();
    }

    /// Waits until the node has no session, or has one again.
    #[track_caller]
    pub(crate) fn until_connected(&self, edge: usize, connected: bool) {
        let name = node(edge);
        self.until("the session changes", |status| {
            let mut nodes = status.nodes.iter();
            nodes.any(|node| node.name.as_str() == name && node.connected) == connected
        });
    }
}

/// An agent's command that leads to the server over a [`Stage::long_link`].
pub(crate) fn over_long_link(command: &str) -> String {
    command
        .replace("--server 10.77.0.1:10262", "--server 10.77.0.1")
        .replace("--server 10.77.0.1", "--server 127.0.0.1:10262")
}

/// The name of an edge node.
pub(crate) fn node(edge: usize) -> String {
    format!("edge-{}", edge + 1)
}

/// The command of an agent that has enrolled before.
pub(crate) fn without_token(edge: usize) -> String {
    format!(
        "culvert agent --server 10.77.0.1 --node-name {}",
        node(edge)
    )
}

/// Runs a program that ends by itself; an error is what it said.
pub(crate) fn end_of(launch: &Launch) -> Result<String, String> {
    let mut program = launch.start().unwrap();
    let status = program.wait(PATIENCE).unwrap();
    let output = program.output();
    if status.success() {
        Ok(output)
    } else {
        Err(output)
    }
}
