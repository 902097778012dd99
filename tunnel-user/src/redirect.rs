//! The redirect: loads the kernel programs, tells them what to capture and where to send it, and
//! reads back where an accepted connection was meant to go.
//!
//! ```text
//!  Snapshot --Table--> apply() --> nodes, ports     what is captured
//!  Services --ServiceTable--> apply_services()      the same on its way to a Service
//!  Listeners --> open_gate() --> config, listeners  where it is sent, while somebody listens
//!  accept loop --> Heartbeat::beat()                that somebody also accepts
//!  accepted socket --> OriginalDestinations::of()   where it was meant to go
//! ```
//! Maps and links are pinned: they outlive the server, and the next one adopts them without a moment
//! in which nothing is captured.

pub mod addresses;
mod claim;
mod confinement;
mod counters;
mod diff;
mod entries;
mod error;
mod gate;
mod host;
mod kernel_map;
mod kernel_view;
mod links;
mod local_ranges;
mod log;
mod migration;
mod object;
mod options;
mod original;
mod own_directory;
mod pins;
mod schemes;
mod services;
mod slots;
mod state;
mod table;

use std::{io, os::fd::OwnedFd, path::Path, time::Duration};

use aya::Ebpf;
use tracing::{info, warn};
use tunnel_ebpf::{Address, NodeEntry, PortRule, Ranges, SlotEntry, maps};

use self::{
    claim::Claim,
    gate::{Destination, Gate, Suspension, map_error},
    host::Host,
    kernel_map::KernelMap,
    kernel_view::KernelView,
    migration::Plan,
    pins::{Pins, pin_error},
    services::ServiceMaps,
};
pub use self::{
    claim::{Holders, Sharing},
    confinement::Confinement,
    counters::{CounterReader, Counters, ServiceCounters},
    diff::Changes,
    error::{ApplyError, GateError, InstallError},
    gate::{GateState, Heartbeat, Listeners},
    local_ranges::{HostRange, InvalidRange, LocalRanges, PodRange},
    log::{LOG_TARGET, LogLevel, LogTask},
    options::{Clients, Options},
    original::OriginalDestinations,
    pins::Removed,
    schemes::{NamespaceReader, Namespaces, Scheme, Schemes},
    services::{CaughtService, LeftOutService, ServiceChanges, ServiceTable},
    state::{ProgramState, RedirectState},
    table::{Excluded, Exclusion, NodeMode, Table, TableBuilder},
};

/// The installed redirect.
pub struct Redirect {
    options: Options,
    host: Host,
    claim: Option<Claim>,
    pins: Pins,
    /// Loaded programs that wait to take the place of another version's.
    waiting: Option<Ebpf>,
    /// What another version's programs have noted is handed over by its own until this is dropped.
    former_handover: Option<OwnedFd>,
    nodes: KernelMap<Address, NodeEntry>,
    /// How many entries `nodes` has, once a table was applied.
    applied: Option<usize>,
    /// What the tables hold, unless somebody else may have written.
    view: Option<KernelView>,
    ports: KernelMap<u16, PortRule>,
    slots: KernelMap<u32, SlotEntry>,
    services: ServiceMaps,
    own_addresses: KernelMap<Address, u64>,
    uplinks: KernelMap<u32, u64>,
    namespaces: NamespaceReader,
    /// The ranges that this kernel lets be used.
    ranges: Ranges,
    gate: Gate,
    originals: OriginalDestinations,
    counters: CounterReader,
    log_task: Option<LogTask>,
}

impl Redirect {
    /// Loads the programs and attaches them, or replaces those that an earlier server left. What
    /// is captured, and whether, stays as it was.
    ///
    /// Programs of another version know other maps, which are empty: they are replaced when the
    /// gate is opened.
    ///
    /// # Errors
    /// See [`InstallError`]; each names the way out.
    pub fn install(options: &Options) -> Result<Self, InstallError> {
        Self::try_install(options).map_err(InstallError::with_confinement)
    }

    fn try_install(options: &Options) -> Result<Self, InstallError> {
        let host = Host::check(options.cgroup.as_deref(), &options.pin_root)?;
        if options.log_level.is_some() && !host::can_load_logging_programs() {
            return Err(InstallError::LoggingNeedsPerfmon);
        }
        let pins = Pins::new(&options.pin_root);
        pins.create()?;
        let claim = Claim::new(&options.pin_root, options.sharing)?;
        migration::share_socket_storage(&pins)?;
        let mut plan = Plan::new(&pins)?;
        let mut ebpf = object::load(options.log_level, host.features(), plan.pins())?;
        plan.copy_entries();
        let log_task = options.log_level.map(|_| LogTask::new(&mut ebpf));
        let log_task = log_task
            .transpose()
            .map_err(|error| InstallError::Load(Box::new(error)))?;
        let waiting = if pins.belong_to_another_version() {
            info!(pins = ?options.pin_root, "another version's programs stay until the gate opens");
            Some(ebpf)
        } else {
            switch(&mut ebpf, &pins, &host, &plan)?;
            None
        };
        plan.commit()?;
        info!(
            cgroup = ?host.cgroup.path,
            pins = ?pins.directory(),
            kernel = host.release,
            "redirect installed"
        );
        Self::with_maps(options.clone(), host, claim, pins, waiting, log_task)
    }

    fn with_maps(
        options: Options,
        host: Host,
        claim: Claim,
        pins: Pins,
        waiting: Option<Ebpf>,
        log_task: Option<LogTask>,
    ) -> Result<Self, InstallError> {
        let open = |error| pin_error("use the maps in", pins.directory())(error);
        let (nodes, ports) = (
            KernelMap::open(&pins.map(maps::NODES)).map_err(open)?,
            KernelMap::open(&pins.map(maps::PORTS)).map_err(open)?,
        );
        let gate = Gate::open_maps(&pins).map_err(open)?;
        let ranges = usable_ranges(&options, &host);
        let former = gate.config().map_err(open)?;
        let former = former.map_or(Ranges::OFF, |config| config.ranges);
        let originals = OriginalDestinations::open(&pins, [ranges, former]).map_err(open)?;
        let counters = CounterReader::open(&pins).map_err(open)?;
        let slots = KernelMap::open(&pins.map(maps::SLOTS)).map_err(open)?;
        let own_addresses = KernelMap::open(&pins.map(maps::OWN_ADDRESSES)).map_err(open)?;
        let uplinks = KernelMap::open(&pins.map(maps::UPLINKS)).map_err(open)?;
        let namespaces = NamespaceReader::open(&pins).map_err(open)?;
        let services = ServiceMaps::open(&pins).map_err(open)?;
        Ok(Self {
            options,
            host,
            claim: Some(claim),
            pins,
            waiting,
            former_handover: None,
            nodes,
            applied: None,
            view: None,
            ports,
            slots,
            services,
            own_addresses,
            uplinks,
            namespaces,
            ranges,
            gate,
            originals,
            counters,
            log_task,
        })
    }

    /// Redirects connects to these listeners from now on, until the gate is closed, they are, or
    /// the heartbeat stops. Replaces what another server opened.
    ///
    /// # Errors
    /// When a listener is no place to redirect to, or the kernel refuses.
    pub fn open_gate(&mut self, listeners: &Listeners<'_>) -> Result<(), GateError> {
        let destination = Destination::of(*listeners)?;
        let replaces = self.waiting.is_some();
        let lenient_for = replaces.then_some(SYN_LIFETIME);
        // A predecessor goes on accepting for a moment. One of another version knows of no ranges, one of this
        // version of its own; what is noted it finds, for the storage of accepted sockets is shared with it.
        let former = self.gate.config().map_err(map_error(maps::CONFIG))?;
        let is_known = former.is_none_or(|former| former.ranges == self.ranges);
        let ranges = if replaces || !is_known {
            Ranges::OFF
        } else {
            self.ranges
        };
        let config = destination.config(&self.options, ranges, lenient_for);
        if !destination.knows_netns() {
            warn!(
                kernel = self.host.release,
                "this kernel does not tell network namespaces apart (5.14 or newer does): \
                 a local user who can make one can disturb connections of others, and what is meant \
                 for this machine's own processes alone is open to pods",
            );
        }
        self.own_port(destination.port())
            .map_err(map_error(maps::PORTS))?;
        self.gate.open(*listeners, config)?;
        if let Some(mut ebpf) = self.waiting.take() {
            self.former_handover = links::switch(&mut ebpf, &self.pins, &self.host)
                .map_err(|error| GateError::Switch(Box::new(error)))?;
        }
        info!(?destination, "redirecting");
        Ok(())
    }

    /// Sends connects to these listeners from now on, which are accepted from already. False if the gate leads there,
    /// is closed, or is another server's.
    ///
    /// # Errors
    /// When a listener is no place to redirect to, or the kernel refuses.
    pub fn move_gate(&mut self, listeners: &Listeners<'_>) -> Result<bool, GateError> {
        let destination = Destination::of(*listeners)?;
        let moved = self.gate.lead_to(*listeners, &destination)?;
        if moved {
            info!(?destination, "redirecting");
        }
        Ok(moved)
    }

    /// Lets the ranges be used, now that no predecessor accepts any longer. Does nothing if they are, or if
    /// another server has opened the gate meanwhile.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn use_ranges(&mut self) -> Result<(), GateError> {
        self.former_handover = None;
        self.gate.set_ranges(self.ranges)
    }

    /// Marks the redirect's own port. One of an earlier server goes with the next table.
    fn own_port(&mut self, port: u16) -> io::Result<()> {
        self.forget();
        let mut rule = self.ports.get(&port)?.unwrap_or(PortRule {
            groups: 0,
            kind: tunnel_ebpf::port_kind::OWN,
            clients: tunnel_ebpf::clients::ALL,
        });
        rule.kind = tunnel_ebpf::port_kind::OWN;
        self.ports.set(&port, &rule)
    }

    /// Stops redirecting; connections that were accepted or wait to be are not touched. False if
    /// the gate is not open, or another server has opened it meanwhile: then it stays open.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn close_gate(&mut self) -> Result<bool, GateError> {
        self.gate.close()
    }

    /// Gives the pins up to other servers: this one writes no more.
    pub fn release(&mut self) {
        self.claim = None;
    }

    /// What keeps the gate open.
    pub fn heartbeat(&self) -> Heartbeat {
        self.gate.heartbeat()
    }

    /// What tells where accepted connections were meant to go.
    pub fn original_destinations(&self) -> OriginalDestinations {
        self.originals.clone()
    }

    /// What tells what the programs counted.
    pub fn counters(&self) -> CounterReader {
        self.counters.clone()
    }

    /// Which scheme serves whom.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn schemes(&self) -> io::Result<Schemes> {
        let usable = self.host.features().ingress;
        let namespaces = self.namespaces.read()?;
        Ok(Schemes::new(&self.options.ranges, usable, namespaces))
    }

    /// What tells how connects of other network namespaces fare.
    pub fn namespaces(&self) -> NamespaceReader {
        self.namespaces.clone()
    }

    /// How many connects are between their SYN and the server's accept, or were lost there.
    pub fn pending(&self) -> io::Result<usize> {
        self.originals.pending()
    }

    /// What is installed, as the kernel tells it.
    pub fn state(&self) -> io::Result<RedirectState> {
        RedirectState::of(self)
    }

    /// The reader of the programs' log, once, if they log.
    pub fn take_log_task(&mut self) -> Option<LogTask> {
        self.log_task.take()
    }
}

/// How long a SYN may be repeated that a predecessor's programs have noted.
const SYN_LIFETIME: Duration = Duration::from_mins(3);

fn usable_ranges(options: &Options, host: &Host) -> Ranges {
    if host.features().ingress {
        options.ranges.compiled()
    } else {
        Ranges::OFF
    }
}

/// Attaches the programs, with the gate closed where they do not use the maps of those before them.
fn switch(ebpf: &mut Ebpf, pins: &Pins, host: &Host, plan: &Plan) -> Result<(), InstallError> {
    if !plan.replaces_any() {
        return links::switch(ebpf, pins, host).map(drop);
    }
    let gate_error = || pin_error("close the gate in", pins.directory());
    let suspension = Suspension::new(pins).map_err(gate_error())?;
    let switched = links::switch(ebpf, pins, host);
    // A server that runs would not find what these programs hand over: it gets no more.
    let for_good = switched.is_ok() && plan.replaces(maps::ACCEPTED_DST);
    if let Some(suspension) = suspension.filter(|_| !for_good) {
        suspension.lift().map_err(gate_error())?;
    }
    switched.map(drop)
}

/// The embedded object as an ELF file, for tools such as `bpftool prog loadall`.
pub fn object() -> &'static [u8] {
    object::PLAIN
}

/// Asks whether a server uses what is pinned below [`Options::pin_root`], without changing anything.
///
/// # Errors
/// [`InstallError::InUse`] if one does.
pub fn refuse_in_use(options: &Options) -> Result<(), InstallError> {
    if own_directory::is_there(&options.pin_root) {
        Claim::alone(&options.pin_root)?;
    }
    Ok(())
}

/// Detaches the programs and removes everything pinned below [`Options::pin_root`].
///
/// # Errors
/// When a server uses it, or a pin cannot be removed.
pub fn uninstall(options: &Options) -> Result<Removed, InstallError> {
    pins::remove_all(Path::new(&options.pin_root))
}
