//! A server, thousands of agents of it, and strangers at its door.
//!
//! ```text
//!   agents    10.79.1.2 ─────────────┐
//!                                    server 10.77.0.1:10262
//!   strangers 10.79.2.2, .3, ... ────┘
//! ```
//! No NAT is in between: a real one would run out of ports for strangers before the server is in any trouble.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::CONTROL;
use crate::report::{self, Strangers};
use crate::site::PATIENCE;
use crate::usage::{cpu_seconds, resident_kib};
use crate::{Daemon, Lab, Launch, Pod, Site, programs};

/// Addresses that strangers come from.
const STRANGERS: u8 = 16;
/// Connects of one address to one port, and what lingers of them, need more than the usual 28,000 ports.
const PORTS: &str = "2000 65535";
/// Longer than any load is applied.
const SECONDS: u32 = 3600;

/// The server and its agents.
#[derive(Debug)]
pub struct Crowd {
    agents: Option<Daemon>,
    server: Option<Daemon>,
    site: Site,
    count: u32,
    /// Sessions that agents have had when all had one for the last time.
    had: u32,
}

impl Crowd {
    /// Registers so many nodes with a server that is not started yet.
    pub fn new(count: u32) -> Result<Self> {
        let mut lab = Lab::alone()?;
        lab.add_pod()?;
        lab.add_pod()?;
        for pod in [lab.pod(0), lab.pod(1)] {
            pod.namespace()
                .sysctl("net.ipv4.ip_local_port_range", PORTS)?;
        }
        for number in 1..STRANGERS {
            let pod = lab.pod(1).namespace();
            pod.ip(&format!("addr add 10.79.2.{}/24 dev eth0", 2 + number))?;
        }
        let site = Site::new(lab)?;
        Launch::offline(programs::probe()?)
            .words(&format!("crowd --register {count} --state-dir"))
            .arg(site.server_state())
            .start()?
            .succeed(PATIENCE)?;
        Ok(Self {
            agents: None,
            server: None,
            site,
            count,
            had: 0,
        })
    }

    /// Starts the server and waits until it serves clients.
    pub fn start_server(&mut self) -> Result<()> {
        let server = self.server.insert(self.site.server().start()?);
        server.wait_for_line("redirecting", PATIENCE).map(drop)
    }

    /// Kills the server and starts another one.
    pub fn restart_server(&mut self) -> Result<()> {
        self.server_mut()?.kill()?;
        self.start_server()
    }

    /// Starts the agents. Each dials at once.
    pub fn start_agents(&mut self) -> Result<()> {
        let agents = Launch::new(self.agents_place().namespace(), programs::probe()?)
            .words(&format!("crowd --server {}:10262 --state-dir", CONTROL[0]))
            .arg(self.site.server_state())
            .start()?;
        self.agents = Some(agents);
        Ok(())
    }

    /// Waits until every agent has a session, and one that is newer than those of the last time.
    pub fn wait_for_agents(&mut self, patience: Duration) -> Result<()> {
        let (count, wanted) = (self.count, self.had + self.count);
        let is_all = |line: &str| {
            report::parse::<report::Crowd>(line)
                .is_ok_and(|crowd| crowd.up == count && crowd.ever >= wanted)
        };
        let agents = self.agents.as_mut().context("no agents were started")?;
        let what = format!("a session for each of {count} agents, {wanted} in all");
        let line = agents.wait_for(patience, &what, is_all)?;
        self.had = report::parse::<report::Crowd>(&line)?.ever;
        agents.forget_output();
        Ok(())
    }

    /// Lets every packet between agents and server vanish.
    pub fn cut(&self) -> Result<()> {
        let drop_all = |of: &str| {
            format!(
                "table inet crowd_cut {{
                    chain in {{ type filter hook prerouting priority -300; {of} drop; }}
                }}"
            )
        };
        self.agents_place()
            .namespace()
            .nft(&drop_all("iifname \"eth0\""))?;
        let control = self.site.lab().control();
        control.nft(&drop_all("iifname \"pod1\""))
    }

    /// Ends [`Self::cut`].
    pub fn restore(&self) -> Result<()> {
        let both = [self.agents_place().namespace(), self.site.lab().control()];
        both.iter()
            .try_for_each(|namespace| namespace.nft("delete table inet crowd_cut"))
    }

    /// Strangers knock so often in a second, until [`end`] asks how it was.
    pub fn strangers(&self, rate: u32) -> Result<Daemon> {
        let place = self.site.lab().pod(1).namespace();
        let mut strangers = Launch::new(place, programs::probe()?).words(&format!(
            "strangers --to {}:10262 --rate {rate} --seconds {SECONDS}",
            CONTROL[0]
        ));
        for number in 0..STRANGERS {
            strangers = strangers
                .arg("--from")
                .arg(format!("10.79.2.{}", 2 + number));
        }
        strangers.start()
    }

    /// The server's resident memory in KiB.
    pub fn resident_kib(&self) -> Result<f64> {
        resident_kib(self.server()?)
    }

    /// Seconds of processor time that the server has used so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.server()?)
    }

    fn agents_place(&self) -> &Pod {
        self.site.lab().pod(0)
    }

    fn server(&self) -> Result<&Daemon> {
        self.server.as_ref().context("no server was started")
    }

    fn server_mut(&mut self) -> Result<&mut Daemon> {
        self.server.as_mut().context("no server was started")
    }
}

/// Ends strangers, and says what came of them.
pub fn end(mut strangers: Daemon) -> Result<Strangers> {
    strangers.stop(PATIENCE)?;
    report::parse(&strangers.output())
}
