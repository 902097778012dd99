//! The gate: whether connects are redirected at all.
//!
//! It is open while a slot of the `listeners` map holds a live listening socket, which the kernel
//! looks after, and while the heartbeat is fresh, which the server's accept loop looks after.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tunnel_ebpf::{Address, Config, LISTENER_V4, LISTENER_V6, Ranges, maps};

use super::{GateError, Options, kernel_map::KernelMap, pins::Pins};
use crate::sys::socket;

const FIRST: u32 = 0;

/// The listening sockets that redirected connects arrive at, one for each address family. Without
/// one for IPv6, native IPv6 connects are sent to the IPv4 one as v4-mapped.
#[derive(Clone, Copy, Debug)]
pub struct Listeners<'a> {
    /// Bound to one IPv4 address.
    pub v4: Option<BorrowedFd<'a>>,
    /// Bound to one IPv6 address, on the same port.
    pub v6: Option<BorrowedFd<'a>>,
}

impl<'a> Listeners<'a> {
    fn slots(self) -> [(u32, Option<BorrowedFd<'a>>); 2] {
        [(LISTENER_V4, self.v4), (LISTENER_V6, self.v6)]
    }
}

/// Keeps the gate open: beat at least every quarter of the heartbeat's maximal age, from the loop
/// that accepts.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    map: Arc<KernelMap<u32, u64>>,
}

/// The maps behind the gate.
#[derive(Debug)]
pub(super) struct Gate {
    config: KernelMap<u32, Config>,
    heartbeat: Heartbeat,
    /// Written as descriptors, read as the sockets' cookies.
    listeners: KernelMap<u32, u64>,
    /// What this server calls itself in the configuration.
    owner: u64,
}

impl Heartbeat {
    /// Tells the programs that the server accepts connections.
    pub fn beat(&self) -> io::Result<()> {
        self.map.set(&FIRST, &monotonic_nanoseconds())
    }

    /// How long ago the last beat was; `None` before the first.
    pub(super) fn age(&self) -> io::Result<Option<Duration>> {
        let last = self.map.get(&FIRST)?.unwrap_or(0);
        let age = monotonic_nanoseconds().saturating_sub(last);
        Ok((last != 0).then(|| Duration::from_nanos(age)))
    }
}

impl Gate {
    pub(super) fn open_maps(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            config: KernelMap::open(&pins.map(maps::CONFIG))?,
            heartbeat: Heartbeat {
                map: Arc::new(KernelMap::open(&pins.map(maps::HEARTBEAT))?),
            },
            listeners: KernelMap::open(&pins.map(maps::LISTENERS))?,
            owner: rand::random(),
        })
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    pub(super) fn config(&self) -> io::Result<Option<Config>> {
        let config = self.config.get(&FIRST)?;
        Ok(config.filter(|config| config.port != 0))
    }

    /// Lets connects through the gate, in an order in which each step leaves the programs right.
    pub(super) fn open(&self, listeners: Listeners<'_>, config: Config) -> Result<(), GateError> {
        let owner = self.owner;
        self.set_config(Config { owner, ..config })?;
        self.heartbeat.beat().map_err(map_error(maps::HEARTBEAT))?;
        self.fill(listeners)?;
        self.empty_others(listeners)
    }

    /// Changes the ranges of the configuration that this server wrote.
    pub(super) fn set_ranges(&self, ranges: Ranges) -> Result<(), GateError> {
        match self.own_config()? {
            Some(config) if config.ranges != ranges => self.set_config(Config { ranges, ..config }),
            _ => Ok(()),
        }
    }

    /// Leads to other listeners, if this server wrote the configuration. False if it does so already, or is closed.
    pub(super) fn lead_to(
        &self,
        listeners: Listeners<'_>,
        destination: &Destination,
    ) -> Result<bool, GateError> {
        let is_open = self.has_listener().map_err(map_error(maps::LISTENERS))?;
        let Some(config) = self.own_config()?.filter(|_| is_open) else {
            return Ok(false);
        };
        let moved = destination.instead_of_that_in(config);
        if moved == config {
            return Ok(false);
        }
        // A slot that is emptied while connects are sent there would have them refused.
        self.fill(listeners)?;
        self.set_config(moved)?;
        self.empty_others(listeners)?;
        Ok(true)
    }

    fn own_config(&self) -> Result<Option<Config>, GateError> {
        let config = self.config().map_err(map_error(maps::CONFIG))?;
        Ok(config.filter(|config| self.wrote(config)))
    }

    /// What this server calls itself.
    pub(super) fn owner(&self) -> u64 {
        self.owner
    }

    /// Whether this server wrote the configuration.
    pub(super) fn wrote(&self, config: &Config) -> bool {
        config.owner == self.owner
    }

    fn set_config(&self, config: Config) -> Result<(), GateError> {
        let set = self.config.set(&FIRST, &config);
        set.map_err(map_error(maps::CONFIG))
    }

    /// Closes the gate. False if it is closed, or another server has opened it anew meanwhile: then
    /// it stays open.
    pub(super) fn close(&self) -> Result<bool, GateError> {
        if self.own_config()?.is_none() {
            return Ok(false);
        }
        let v4 = self
            .empty(LISTENER_V4)
            .map_err(map_error(maps::LISTENERS))?;
        let v6 = self
            .empty(LISTENER_V6)
            .map_err(map_error(maps::LISTENERS))?;
        Ok(v4 || v6)
    }

    /// Whether connects of any family are redirected now.
    pub(super) fn state(&self) -> io::Result<GateState> {
        let listens = self.has_listener()?;
        let Some(config) = self.config()?.filter(|_| listens) else {
            return Ok(GateState::NoListener);
        };
        let most = Duration::from_nanos(config.heartbeat_max_age);
        Ok(match self.heartbeat.age()? {
            Some(age) if age <= most => GateState::Open,
            _ => GateState::StaleHeartbeat,
        })
    }

    fn fill(&self, listeners: Listeners<'_>) -> Result<(), GateError> {
        for (slot, socket) in listeners.slots() {
            let Some(socket) = socket else { continue };
            let descriptor = u64::from(socket.as_raw_fd().cast_unsigned());
            let filled = self.listeners.set(&slot, &descriptor);
            filled.map_err(map_error(maps::LISTENERS))?;
        }
        Ok(())
    }

    fn empty_others(&self, listeners: Listeners<'_>) -> Result<(), GateError> {
        for (slot, _) in listeners
            .slots()
            .iter()
            .filter(|(_, socket)| socket.is_none())
        {
            self.empty(*slot).map_err(map_error(maps::LISTENERS))?;
        }
        Ok(())
    }

    fn empty(&self, slot: u32) -> io::Result<bool> {
        empty(&self.listeners, slot)
    }

    /// Whether a socket of any family is in its slot.
    fn has_listener(&self) -> io::Result<bool> {
        let (v4, v6) = (
            self.listeners.get(&LISTENER_V4)?,
            self.listeners.get(&LISTENER_V6)?,
        );
        Ok(v4.or(v6).is_some())
    }
}

/// A gate that is closed for a moment, while programs are replaced by others that use other maps:
/// what one notes of a connect, the other would not find.
#[derive(Debug)]
pub(super) struct Suspension {
    map: KernelMap<u32, Config>,
    config: Config,
}

impl Suspension {
    /// Closes the gate for the programs that use the pinned maps. `None` if it is closed for their
    /// successors anyway, as a new map holds no configuration.
    pub(super) fn new(pins: &Pins) -> io::Result<Option<Self>> {
        let Ok(map) = KernelMap::<u32, Config>::open(&pins.map(maps::CONFIG)) else {
            return Ok(None);
        };
        let Some(config) = map.get(&FIRST)? else {
            return Ok(None);
        };
        let heartbeat_max_age = 0;
        let closed = Config {
            heartbeat_max_age,
            ..config
        };
        map.set(&FIRST, &closed)?;
        Ok(Some(Self { map, config }))
    }

    /// Lets the gate be as it was.
    pub(super) fn lift(self) -> io::Result<()> {
        self.map.set(&FIRST, &self.config)
    }
}

/// Whether connects are redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateState {
    /// They are.
    Open,
    /// No server listens.
    NoListener,
    /// A server listens but shows no life.
    StaleHeartbeat,
}

/// Where the listeners are, checked to be a place to redirect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
    port: u16,
    /// The network namespace of the listeners, if the kernel tells.
    netns: Option<u64>,
}

impl Destination {
    pub(super) fn of(listeners: Listeners<'_>) -> Result<Self, GateError> {
        let v4 = listeners.v4.map(local_address).transpose()?;
        let v6 = listeners.v6.map(local_address).transpose()?;
        if let Some(wrong) = v4
            .filter(|v4| !v4.is_ipv4())
            .or(v6.filter(|v6| !v6.is_ipv6()))
        {
            return Err(GateError::WrongFamily(wrong));
        }
        let port = match (v4, v6) {
            (None, None) => return Err(GateError::NoListener),
            (Some(v4), Some(v6)) if v4.port() != v6.port() => {
                return Err(GateError::DifferentPorts {
                    v4: v4.port(),
                    v6: v6.port(),
                });
            }
            (Some(one), _) | (None, Some(one)) => one.port(),
        };
        let netns = listeners.v4.or(listeners.v6).map(socket::netns_cookie);
        let netns = netns.transpose().map_err(GateError::Socket)?.flatten();
        Ok(Self {
            v4,
            v6,
            port,
            netns,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The configuration that sends connects there; `lenient_for` is how long connections are accepted
    /// that another version's programs noted.
    pub(super) fn config(
        &self,
        options: &Options,
        ranges: Ranges,
        lenient_for: Option<Duration>,
    ) -> Config {
        Config {
            redirect_v4: address(self.v4),
            redirect_v6: address(self.v6),
            ranges,
            own_netns: self.netns.unwrap_or(0),
            lenient_until: lenient_for.map_or(0, |time| {
                monotonic_nanoseconds().saturating_add(nanoseconds(time))
            }),
            mark: options.mark,
            port: self.port,
            clients: options.clients.code(),
            heartbeat_max_age: nanoseconds(options.heartbeat_max_age),
            owner: 0,
        }
    }

    /// The same configuration, but for where it sends connects.
    fn instead_of_that_in(&self, config: Config) -> Config {
        Config {
            redirect_v4: address(self.v4),
            redirect_v6: address(self.v6),
            port: self.port,
            ..config
        }
    }

    /// Whether the kernel tells network namespaces apart.
    pub(super) fn knows_netns(&self) -> bool {
        self.netns.is_some()
    }
}

fn address(socket: Option<SocketAddr>) -> Address {
    socket.map_or(Address::UNSPECIFIED, |socket| socket.ip().into())
}

/// Whether there was a socket in the slot.
fn empty(listeners: &KernelMap<u32, u64>, slot: u32) -> io::Result<bool> {
    match listeners.remove(&slot) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        result => result,
    }
}

fn local_address(socket: BorrowedFd<'_>) -> Result<SocketAddr, GateError> {
    let address: SocketAddr = rustix::net::getsockname(socket)
        .and_then(TryInto::try_into)
        .map_err(|error| GateError::Socket(error.into()))?;
    if address.ip().is_unspecified() {
        return Err(GateError::UnspecifiedAddress(address));
    }
    Ok(address)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn monotonic_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds * 1_000_000_000 + nanoseconds
}

pub(super) fn map_error(map: &'static str) -> impl FnOnce(io::Error) -> GateError {
    move |source| GateError::Map { map, source }
}
