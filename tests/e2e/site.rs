//! A control plane and its edge nodes, on which server and agents are started.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use culvert_tests::report::{Connects, parse};
use culvert_tests::{
    Cgroup, Daemon, Lab, Launch, NetNs, PinRoot, handover, lab::CONTROL, programs, unique,
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tunnel_user::observability::status::{SessionStatus, StatusReport};

/// How long anything may take on a machine that does much else; no test waits it out.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// The first edge node as clients dial it.
pub(crate) const NODE: &str = "10.78.0.11:10250";
pub(crate) const NODE_V6: &str = "[fd00:78::11]:10250";

/// The order of the fields is the order of their end. Programs are the tests' own and end before.
pub(crate) struct Site {
    scratch: TempDir,
    pins: PinRoot,
    cgroup: Cgroup,
    pub(crate) lab: Lab,
    connections: AtomicU32,
}

impl Site {
    /// One edge node.
    pub(crate) fn new() -> Self {
        Self::with_edges(1)
    }

    pub(crate) fn with_edges(edges: u8) -> Self {
        Self {
            lab: Lab::nat_with(edges).unwrap(),
            cgroup: Cgroup::new("e2e").unwrap(),
            pins: PinRoot::new().unwrap(),
            scratch: unique::scratch_dir("e2e").unwrap(),
            connections: AtomicU32::new(0),
        }
    }

    pub(crate) fn control(&self) -> &NetNs {
        self.lab.control()
    }

    pub(crate) fn edge(&self) -> &NetNs {
        self.lab.edge(0).namespace()
    }

    /// A file or directory of this site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn flags(&self, line: &str) -> String {
        line.replace('@', &format!("{}/", self.scratch.path().display()))
    }
}

// === programs ===

impl Site {
    /// Server and agent of the first edge node, with a session between them.
    pub(crate) fn culvert(&self, server: &str, agent: &str) -> (Daemon, Daemon) {
        let server = self.server(server);
        let agent = self.agent(0, agent);
        (server, agent)
    }

    /// A server that takes clients. `flags` come last; `@` stands for this site's directory.
    pub(crate) fn server(&self, flags: &str) -> Daemon {
        let mut server = self.server_launch(flags).start().unwrap();
        server.wait_for_line("redirecting", PATIENCE).unwrap();
        self.until("the server is ready", |status| {
            let own = status.pid == server.pid();
            own && status.conditions.iter().all(|condition| condition.ready)
        });
        server
    }

    pub(crate) fn server_launch(&self, flags: &str) -> Launch {
        Launch::new(self.control(), programs::culvert().unwrap())
            .cgroup(&self.cgroup)
            .words(&self.flags("server --state-dir @server --run-dir @run"))
            .words(&format!(
                "--redirect-address {} --redirect-address {}",
                CONTROL[0], CONTROL[1]
            ))
            .arg("--cgroup")
            .arg(self.cgroup.path())
            .arg("--pin-root")
            .arg(self.pins.path())
            .words(&self.flags(flags))
    }

    /// An agent with a fresh token, and a session.
    pub(crate) fn agent(&self, edge: usize, flags: &str) -> Daemon {
        let join = self.token(edge, "");
        self.up(edge, &format!("{join} {flags}"))
    }

    /// An agent that has enrolled before, and gets a session again.
    pub(crate) fn agent_again(&self, edge: usize, flags: &str) -> Daemon {
        let name = node(edge);
        self.up(
            edge,
            &format!("--server 10.77.0.1 --node-name {name} {flags}"),
        )
    }

    pub(crate) fn up(&self, edge: usize, flags: &str) -> Daemon {
        let mut agent = self.agent_launch(edge, flags).start().unwrap();
        agent
            .wait_for_line("session established", PATIENCE)
            .unwrap();
        self.until("the node has its session", |status| has(status, edge));
        agent
    }

    /// An agent in the edge's namespace and with its state. `flags` begin with what the token says.
    pub(crate) fn agent_launch(&self, edge: usize, flags: &str) -> Launch {
        let own = format!("--state-dir @agent{edge} --run-dir @agent{edge}-run");
        Launch::new(
            self.lab.edge(edge).namespace(),
            programs::culvert().unwrap(),
        )
        .words("agent")
        .words(&self.flags(&format!("{own} {flags}")))
    }

    /// What `culvert token create` tells to run on the edge, after `culvert agent`.
    pub(crate) fn token(&self, edge: usize, flags: &str) -> String {
        let (name, edge) = (node(edge), self.lab.edge(edge));
        let addresses = format!("--address {} --address {}", edge.ipv4(), edge.ipv6());
        let line = self
            .command(&format!(
                "token create --state-dir @server --node {name} {addresses} --server 10.77.0.1 {flags}"
            ))
            .unwrap();
        let join = line.trim().strip_prefix("culvert agent ");
        join.expect("the join command").to_owned()
    }

    /// Runs a command that ends by itself; an error is what it said.
    pub(crate) fn command(&self, line: &str) -> Result<String, String> {
        let launch = Launch::offline(programs::culvert().unwrap()).words(&self.flags(line));
        let mut command = launch.start().unwrap();
        let status = command.wait(PATIENCE).unwrap();
        let output = command.output();
        status.success().then_some(output.clone()).ok_or(output)
    }

    /// A server program on the edge.
    pub(crate) fn target(&self, edge: usize, line: &str) -> Daemon {
        let mut target = self
            .probe(
                self.lab.edge(edge).namespace(),
                &format!("echo --seconds 300 {line}"),
            )
            .start()
            .unwrap();
        target.wait_for_line("listening", PATIENCE).unwrap();
        target
    }
}

pub(crate) fn node(edge: usize) -> String {
    format!("edge-{edge}")
}

fn has(status: &StatusReport, edge: usize) -> bool {
    let name = node(edge);
    status
        .nodes
        .iter()
        .any(|node| node.name.as_str() == name && node.connected)
}

// === clients ===

impl Site {
    /// A client in the cgroup that the redirect watches.
    pub(crate) fn probe(&self, namespace: &NetNs, line: &str) -> Launch {
        self.client(namespace, programs::probe().unwrap())
            .words(line)
    }

    pub(crate) fn client(&self, namespace: &NetNs, program: impl Into<PathBuf>) -> Launch {
        Launch::new(namespace, program.into()).cgroup(&self.cgroup)
    }

    /// Runs a probe on the control plane and returns its report.
    pub(crate) fn report<T: DeserializeOwned>(&self, line: &str) -> T {
        let mut probe = self.probe(self.control(), line).start().unwrap();
        parse(&probe.succeed(PATIENCE * 2).unwrap()).unwrap()
    }

    /// Connects, echoes a byte, closes: how it failed, and after how many milliseconds.
    pub(crate) fn try_once(&self, to: &str) -> (Option<String>, f64) {
        let report: Connects = self.report(&format!(
            "flood --to {to} --count 1 --seconds 60 --timeout-ms 20000"
        ));
        (report.failed.keys().next().cloned(), report.slowest_ms)
    }

    pub(crate) fn fails(&self, to: &str) -> String {
        self.try_once(to).0.expect("a connect that fails")
    }

    #[track_caller]
    pub(crate) fn works(&self, to: &str) {
        assert_eq!(self.try_once(to).0, None, "{to}");
    }

    /// Waits until connects work.
    #[track_caller]
    pub(crate) fn eventually_works(&self, to: &str) {
        eventually("connects work", PATIENCE, || {
            self.try_once(to).0.is_none().then_some(())
        });
    }

    /// Waits until connects fail in that way.
    #[track_caller]
    pub(crate) fn eventually_fails(&self, to: &str, outcome: &str) {
        eventually(outcome, PATIENCE, || {
            (self.try_once(to).0.as_deref() == Some(outcome)).then_some(())
        });
    }

    /// The same with connects that wait for 100 ms only: nobody answers for a while.
    #[track_caller]
    pub(crate) fn eventually_fails_quickly(&self, to: &str, outcome: &str) {
        let line = format!("connect --to {to} --echo --timeout-ms 100");
        eventually(outcome, PATIENCE, || {
            let report: Connects = self.report(&line);
            report.failed.contains_key(outcome).then_some(())
        });
    }

    /// A connection from the control plane, for the test to use.
    pub(crate) fn connect(&self, to: &str) -> TcpStream {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let path = self.path(&format!("give{number}"));
        let taker = UnixListener::bind(&path).unwrap();
        let mut probe = self
            .probe(self.control(), &format!("dial --to {to}"))
            .arg("--give-to")
            .arg(&path)
            .start()
            .unwrap();
        probe.succeed(PATIENCE).unwrap();
        let connection = handover::take(&taker.accept().unwrap().0).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.set_write_timeout(Some(PATIENCE)).unwrap();
        connection
    }

    /// A socket that listens on the first edge, for the test to be the target itself.
    pub(crate) fn listen(&self, to: &str) -> TcpListener {
        let address: SocketAddr = to.parse().unwrap();
        self.edge().run(|| TcpListener::bind(address)).unwrap()
    }

    /// A connection, and the target's end of it.
    pub(crate) fn pair(&self, target: &TcpListener) -> (TcpStream, TcpStream) {
        let client = self.connect(&target.local_addr().unwrap().to_string());
        let (accepted, _) = target.accept().unwrap();
        accepted.set_read_timeout(Some(PATIENCE)).unwrap();
        accepted.set_write_timeout(Some(PATIENCE)).unwrap();
        (client, accepted)
    }
}

// === what server and agents say of themselves ===

impl Site {
    pub(crate) fn status(&self) -> StatusReport {
        let text = self.command("status --run-dir @run --json").unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn agent_status(&self, edge: usize) -> StatusReport {
        let line = format!("status --agent --run-dir @agent{edge}-run --json");
        serde_json::from_str(&self.command(&line).unwrap()).unwrap()
    }

    /// The first edge's session, as the server shows it.
    pub(crate) fn session(&self) -> Option<SessionStatus> {
        let sessions = self.status().sessions.into_iter();
        sessions
            .rev()
            .find(|session| session.node.as_str() == node(0))
    }

    /// Waits until the server's status is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&StatusReport) -> bool) {
        eventually(what, PATIENCE, || {
            let text = self.command("status --run-dir @run --json").ok()?;
            let status = serde_json::from_str(&text).unwrap();
            wanted(&status).then_some(())
        });
    }

    /// Waits until the node has no session, or has one again.
    pub(crate) fn until_connected(&self, edge: usize, connected: bool) {
        self.until("the session changes", |status| {
            has(status, edge) == connected
        });
    }

    /// A metric of the server, all its series with these labels together; 0 if there is none.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        metric(self.control(), 10265, &format!("culvert_server_{series}"))
    }

    /// A metric of an edge's agent.
    pub(crate) fn agent_metric(&self, edge: usize, series: &str) -> u64 {
        let edge = self.lab.edge(edge).namespace();
        metric(edge, 10266, &format!("culvert_agent_{series}"))
    }
}

fn metric(namespace: &NetNs, port: u16, series: &str) -> u64 {
    let url = format!("http://127.0.0.1:{port}/metrics");
    let mut curl = namespace.command("curl");
    let text = culvert_tests::command::output_of(curl.args(["-sSf", &url]), "").unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(series));
    let values = lines.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters of a test are small"
    )]
    values.map(|value| value as u64).sum()
}

/// Resident memory of a program in KiB.
pub(crate) fn resident_kib(program: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// Asks again and again, for there is no event to wait for across processes.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first edge's address of that family on a port.
pub(crate) fn on_port(address: impl Into<IpAddr>, port: u16) -> String {
    SocketAddr::new(address.into(), port).to_string()
}
