//! Where an accepted connection was meant to go: the address at which it arrived stands for its node
//! or, where no range served the client, a note tells.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
    sync::Arc,
};

use aya::maps::{Map, MapData, MapError, SkStorage};
use rustix::io::Errno;
use tunnel_ebpf::{Address, Endpoint, OBSOLETE_NOTE, Pending, Ranges, SlotEntry, Tuple, maps};

use super::{gate::monotonic_nanoseconds, kernel_map::KernelMap, pins::Pins};
use crate::model::OriginalDst;

/// Reads original destinations of accepted connections.
#[derive(Clone, Debug)]
pub struct OriginalDestinations {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Ours, and those of a predecessor, whose clients may still be on their way to us.
    ranges: [Ranges; 2],
    slots: KernelMap<u32, SlotEntry>,
    accepted: SkStorage<MapData, Endpoint>,
    pending: KernelMap<Tuple, Pending>,
    /// The notes of servers of the first version, whose clients may still be on their way to this one.
    former_pending: Vec<KernelMap<Tuple, Endpoint>>,
}

impl OriginalDestinations {
    pub(super) fn open(pins: &Pins, ranges: [Ranges; 2]) -> io::Result<Self> {
        let inner = Inner {
            ranges,
            slots: KernelMap::open(&pins.map(maps::SLOTS))?,
            accepted: socket_storage(&pins.map(maps::ACCEPTED_DST))?,
            pending: KernelMap::open(&pins.map(maps::PENDING_DST))?,
            former_pending: pins
                .other_maps(maps::PENDING_DST)
                .iter()
                .filter_map(|pin| KernelMap::open(pin).ok())
                .collect(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The address that the client of an accepted connection dialled. `None`: no redirected client
    /// opened it, and nobody can tell where it was meant to go. Close it.
    pub fn of(&self, socket: impl AsFd) -> io::Result<Option<OriginalDst>> {
        let arrived_at: Endpoint = match SocketAddr::try_from(rustix::net::getsockname(&socket)?) {
            Ok(local) => local.into(),
            Err(_) => return Ok(None),
        };
        let found = match self.inner.slot(&arrived_at.address) {
            Some(slot) => self.inner.node_of(slot, arrived_at.port())?,
            None => self.inner.noted(&socket, arrived_at)?,
        };
        Ok(found.map(|original| OriginalDst(original.into())))
    }

    /// Forgets connects that never arrived, and cannot any more; how many.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn forget_obsolete(&self) -> io::Result<usize> {
        let now = monotonic_nanoseconds();
        let mut forgotten = 0;
        for (tuple, pending) in self.inner.pending.entries()? {
            if now.saturating_sub(pending.noted_at) > OBSOLETE_NOTE {
                forgotten += usize::from(self.inner.pending.remove(&tuple)?);
            }
        }
        Ok(forgotten)
    }

    /// How many connects are noted that are between their SYN and the server's accept.
    pub(super) fn pending(&self) -> io::Result<usize> {
        self.inner.pending.entries().map(|entries| entries.len())
    }
}

impl Inner {
    fn slot(&self, address: &Address) -> Option<u32> {
        self.ranges.iter().find_map(|Ranges { host, pods, v6 }| {
            [host, pods, v6]
                .into_iter()
                .find_map(|range| range.slot(address))
        })
    }

    fn node_of(&self, slot: u32, port: u16) -> io::Result<Option<Endpoint>> {
        let entry = self.slots.get(&slot)?;
        Ok(entry.map(|entry| Endpoint::new(entry.address, port)))
    }

    fn noted(&self, socket: &impl AsFd, arrived_at: Endpoint) -> io::Result<Option<Endpoint>> {
        match self.accepted.get(&socket.as_fd().as_raw_fd(), 0) {
            Ok(original) => Ok(Some(original)),
            Err(MapError::KeyNotFound) => self.still_pending(socket, arrived_at),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// What the kernel had no memory to hand over, or programs of another version noted.
    fn still_pending(
        &self,
        socket: &impl AsFd,
        arrived_at: Endpoint,
    ) -> io::Result<Option<Endpoint>> {
        let client = match rustix::net::getpeername(socket) {
            // The client was gone before we looked.
            Err(Errno::NOTCONN) => return Ok(None),
            client => client?,
        };
        let Some(Ok(client)) = client.map(SocketAddr::try_from) else {
            return Ok(None);
        };
        let tuple = Tuple {
            client: client.into(),
            server: arrived_at,
        };
        if let Some(pending) = self.pending.get(&tuple)? {
            if pending.ambiguous != 0 {
                return Ok(None);
            }
            self.pending.remove(&tuple)?;
            return Ok(Some(pending.original));
        }
        for former in &self.former_pending {
            if let Some(original) = former.get(&tuple)? {
                former.remove(&tuple)?;
                return Ok(Some(original));
            }
        }
        Ok(None)
    }
}

fn socket_storage(pin: &Path) -> io::Result<SkStorage<MapData, Endpoint>> {
    let map = MapData::from_pin(pin).map_err(io::Error::other)?;
    Map::SkStorage(map).try_into().map_err(io::Error::other)
}
