//! What is installed, for people and for `culvert status`.

use std::{io, net::IpAddr, path::PathBuf};

use serde::Serialize;
use tunnel_ebpf::programs;

use super::{
    Counters, GateState, Redirect, Schemes, ServiceCounters, host::Host, links, pins::Pins,
};

/// The installed redirect, as the kernel tells it.
#[derive(Clone, Debug, Serialize)]
pub struct RedirectState {
    /// The kernel's release.
    pub kernel: String,
    /// The cgroup that the programs are attached to.
    pub cgroup: PathBuf,
    /// Where maps and links are pinned.
    pub pins: PathBuf,
    /// The programs.
    pub programs: Vec<ProgramState>,
    /// How many addresses are captured.
    pub nodes: usize,
    /// How many ports of Services are caught.
    pub services: usize,
    /// The ports that are tunnelled, for all nodes or some.
    pub ports: Vec<u16>,
    /// Whether connects are redirected.
    pub gate: GateState,
    /// Where connects are redirected to, if the gate was ever opened.
    pub redirect_addresses: Vec<IpAddr>,
    /// The port that they are redirected to.
    pub redirect_port: Option<u16>,
    /// How original destinations reach the server, and from where nothing arrives.
    pub schemes: Schemes,
    /// What the programs counted.
    pub counters: Counters,
    /// What they counted of connects to Services.
    pub service_counters: ServiceCounters,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramState {
    /// Its name.
    pub name: &'static str,
    /// Its id, as in `bpftool prog show id`; `None` if it is not attached.
    pub id: Option<u32>,
    /// Whether it is attached where it should be.
    pub attached: bool,
}

impl RedirectState {
    pub(super) fn of(redirect: &Redirect) -> io::Result<Self> {
        let (host, pins) = (&redirect.host, &redirect.pins);
        let config = redirect.gate.config()?;
        let addresses = config.iter().flat_map(|c| [c.redirect_v4, c.redirect_v6]);
        let tunnelled = redirect
            .ports
            .entries()?
            .into_iter()
            .filter(|(_, rule)| rule.groups != 0);
        let mut ports: Vec<u16> = tunnelled.map(|(port, _)| port).collect();
        ports.sort_unstable();
        Ok(Self {
            kernel: host.release.clone(),
            cgroup: host.cgroup.path.clone(),
            pins: pins.directory().to_owned(),
            programs: programs::ALL
                .into_iter()
                .map(|name| ProgramState::read(name, host, pins))
                .collect::<io::Result<_>>()?,
            nodes: match redirect.applied {
                Some(nodes) => nodes,
                None => redirect.nodes.entries()?.len(),
            },
            services: redirect.services.len()?,
            ports,
            gate: redirect.gate.state()?,
            redirect_addresses: addresses
                .filter(|address| !address.is_unspecified())
                .map(IpAddr::from)
                .collect(),
            redirect_port: config.map(|config| config.port),
            schemes: redirect.schemes()?,
            counters: redirect.counters.read()?,
            service_counters: redirect.counters.read_services()?,
        })
    }
}

impl ProgramState {
    fn read(name: &'static str, host: &Host, pins: &Pins) -> io::Result<Self> {
        let link = links::attached(pins, name)?;
        Ok(Self {
            name,
            id: link.map(|link| link.program_id),
            attached: link.is_some_and(|link| link.place_id == host.place(name).id()),
        })
    }
}
