//! A control plane and an edge node with everything that runs on them.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use culvert_tests::{
    Cgroup, Daemon, Lab, Launch, NetNs, PinRoot, lab::CONTROL, link, programs, site, unique,
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// How a client gets to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To an address of the edge that the router lets through.
    Direct,
    /// To the node's address, to which there is no route.
    Culvert,
}

/// Echoes.
pub(crate) const ECHO: u16 = 10_250;
/// Serves [`crate::transfer`].
pub(crate) const TRANSFER: u16 = 10_255;
/// Serves `probe stall`.
pub(crate) const DOWNLOAD: u16 = 9100;

const DIRECT_ADDRESS: &str = "10.78.1.11";
pub(crate) const NODE_ADDRESS: &str = "10.78.0.11";
/// Where agents dial a link.
pub(crate) const LINK_PORT: u16 = 20_262;
const AGENT_PORT: u16 = 10_262;
const PATIENCE: Duration = Duration::from_secs(30);
/// One transfer, with making and checking its bytes.
const CLIENT_PATIENCE: Duration = Duration::from_mins(5);
const SECONDS: &str = "3600";

/// The order of the fields is the order of their end.
pub(crate) struct Deployment {
    pub(crate) agent: Daemon,
    pub(crate) server: Daemon,
    _link: Option<Daemon>,
    _targets: Vec<Daemon>,
    _scratch: TempDir,
    _pins: PinRoot,
    cgroup: Cgroup,
    lab: Lab,
}

impl Way {
    /// Where a client dials a port of the target.
    pub(crate) fn to(self, port: u16) -> SocketAddr {
        let address = match self {
            Self::Direct => DIRECT_ADDRESS,
            Self::Culvert => NODE_ADDRESS,
        };
        SocketAddr::new(address.parse().expect("an address"), port)
    }
}

impl Deployment {
    /// Starts targets, server and agent; the session is established when it returns.
    pub(crate) fn start() -> Result<Self> {
        Self::with_link(None)
    }

    /// The same, with a link between the two that takes so long each way.
    pub(crate) fn over(delay: Duration) -> Result<Self> {
        Self::with_link(Some(delay))
    }

    fn with_link(delay: Option<Duration>) -> Result<Self> {
        let (lab, cgroup, pins) = (Lab::nat()?, Cgroup::new("bench")?, PinRoot::new()?);
        open_direct_way(&lab)?;
        let scratch = unique::scratch_dir("bench")?;
        let targets = targets(lab.edge(0).namespace())?;
        let server = start_server(&lab, &cgroup, &pins, &scratch)?;
        let link = delay.map(|delay| start_link(&lab, delay, AGENT_PORT));
        let link = link.transpose()?;
        let port = link.as_ref().map_or(AGENT_PORT, |_| LINK_PORT);
        let agent = start_agent(&lab, &scratch, port)?;
        Ok(Self {
            agent,
            server,
            _link: link,
            _targets: targets,
            _scratch: scratch,
            _pins: pins,
            cgroup,
            lab,
        })
    }

    /// Starts a client of this benchmark on the control plane.
    pub(crate) fn client(&self, line: &str) -> Result<Daemon> {
        self.on_control(Launch::new(self.lab.control(), std::env::current_exe()?))
            .arg("client")
            .words(line)
            .start()
    }

    /// Starts a `probe` on the control plane.
    pub(crate) fn probe(&self, line: &str) -> Result<Daemon> {
        self.on_control(Launch::new(self.lab.control(), programs::probe()?))
            .words(line)
            .start()
    }

    fn on_control(&self, launch: Launch) -> Launch {
        launch.cgroup(&self.cgroup)
    }
}

/// Waits for a client to end and reads its report.
pub(crate) fn report<T: DeserializeOwned>(mut client: Daemon) -> Result<T> {
    culvert_tests::report::parse(&client.succeed(CLIENT_PATIENCE)?)
}

/// A link from [`LINK_PORT`] to a port of the control plane.
pub(crate) fn start_link(lab: &Lab, delay: Duration, port: u16) -> Result<Daemon> {
    let [from, to] = [LINK_PORT, port].map(|port| SocketAddr::new(CONTROL[0], port));
    link::start(lab.control(), from, to, delay)
}

/// Gives the edge a second address that the control plane reaches through the same router.
fn open_direct_way(lab: &Lab) -> Result<()> {
    let (edge, router) = (lab.edge(0).namespace(), lab.router());
    edge.ip(&format!("addr add {DIRECT_ADDRESS}/32 dev lo"))?;
    router.ip(&format!("route add {DIRECT_ADDRESS}/32 dev edge0"))?;
    router.nft(&format!(
        "add rule inet culvert_nat inward ip daddr {DIRECT_ADDRESS} accept"
    ))?;
    lab.control()
        .ip(&format!("route add {DIRECT_ADDRESS}/32 via 10.77.0.254"))?;
    lab.check()
}

pub(crate) fn targets(edge: &NetNs) -> Result<Vec<Daemon>> {
    targets_at(edge, |port| port)
}

/// The same at other ports.
pub(crate) fn targets_at(edge: &NetNs, at: fn(u16) -> u16) -> Result<Vec<Daemon>> {
    let probe = Launch::new(edge, programs::probe()?)
        .words("echo --seconds")
        .arg(SECONDS);
    let own = Launch::new(edge, std::env::current_exe()?);
    [
        probe.clone().words(&format!("--bind 0.0.0.0:{}", at(ECHO))),
        probe.words(&format!("--hash --bind 0.0.0.0:{}", at(DOWNLOAD))),
        own.words(&format!("target 0.0.0.0:{}", at(TRANSFER))),
    ]
    .iter()
    .map(|launch| {
        let mut target = launch.start()?;
        target.wait_for_line("listening", PATIENCE)?;
        Ok(target)
    })
    .collect()
}

fn start_server(lab: &Lab, cgroup: &Cgroup, pins: &PinRoot, scratch: &TempDir) -> Result<Daemon> {
    let mut server = Launch::new(lab.control(), programs::culvert()?)
        .cgroup(cgroup)
        .words("server --redirect-address")
        .arg(CONTROL[0].to_string())
        .arg("--ports")
        .arg(DOWNLOAD.to_string())
        .arg("--state-dir")
        .arg(scratch.path().join("server"))
        .arg("--run-dir")
        .arg(scratch.path().join("server-run"))
        .arg("--cgroup")
        .arg(cgroup.path())
        .arg("--pin-root")
        .arg(pins.path())
        .start()?;
    server.wait_for_line("redirecting", PATIENCE)?;
    Ok(server)
}

fn start_agent(lab: &Lab, scratch: &TempDir, port: u16) -> Result<Daemon> {
    let printed = Launch::offline(programs::culvert()?)
        .words(&format!(
            "token create --node edge --server {}:{port} --address",
            CONTROL[0]
        ))
        .arg(NODE_ADDRESS)
        .arg("--state-dir")
        .arg(scratch.path().join("server"))
        .start()?
        .succeed(PATIENCE)?;
    let join = site::join_command(&printed, scratch.path())?;
    let mut agent = Launch::new(lab.edge(0).namespace(), programs::culvert()?)
        .args(join.split_whitespace().skip(1))
        .arg("--allow-ports")
        .arg(DOWNLOAD.to_string())
        .arg("--state-dir")
        .arg(scratch.path().join("agent"))
        .arg("--run-dir")
        .arg(scratch.path().join("agent-run"))
        .start()?;
    agent.wait_for_line("session established", PATIENCE)?;
    Ok(agent)
}
