//! Where an accepted connection was meant to go.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd as _},
    sync::Arc,
};

use aya::maps::{Map, MapData, MapError, SkStorage};
use rustix::io::Errno;
use tunnel_ebpf::{Endpoint, Tuple, maps};

use super::{kernel_map::KernelMap, pins::Pins};
use crate::model::OriginalDst;

/// Reads original destinations of accepted connections.
#[derive(Clone, Debug)]
pub struct OriginalDestinations {
    maps: Arc<Maps>,
}

#[derive(Debug)]
struct Maps {
    accepted: SkStorage<MapData, Endpoint>,
    pending: KernelMap<Tuple, Endpoint>,
}

impl OriginalDestinations {
    pub(super) fn open(pins: &Pins) -> io::Result<Self> {
        let accepted = MapData::from_pin(pins.map(maps::ACCEPTED_DST)).map_err(io::Error::other)?;
        let maps = Maps {
            accepted: Map::SkStorage(accepted)
                .try_into()
                .map_err(io::Error::other)?,
            pending: KernelMap::open(&pins.map(maps::PENDING_DST))?,
        };
        Ok(Self {
            maps: Arc::new(maps),
        })
    }

    /// The address that the client of an accepted connection dialled. `None`: no redirected client
    /// opened it, and nobody can tell where it was meant to go. Close it.
    pub fn of(&self, socket: impl AsFd) -> io::Result<Option<OriginalDst>> {
        let found = match self.maps.accepted.get(&socket.as_fd().as_raw_fd(), 0) {
            Ok(original) => Some(original),
            Err(MapError::KeyNotFound) => self.still_pending(socket)?,
            Err(error) => return Err(io::Error::other(error)),
        };
        Ok(found.map(|original| OriginalDst(original.into())))
    }

    /// What the kernel had no memory to hand over.
    fn still_pending(&self, socket: impl AsFd) -> io::Result<Option<Endpoint>> {
        let client = match rustix::net::getpeername(&socket) {
            // The client was gone before we looked.
            Err(Errno::NOTCONN) => return Ok(None),
            client => client?,
        };
        let server = rustix::net::getsockname(&socket)?;
        let ends = client
            .and_then(|client| SocketAddr::try_from(client).ok())
            .zip(SocketAddr::try_from(server).ok());
        let Some((client, server)) = ends else {
            return Ok(None);
        };
        let tuple = Tuple {
            client: client.into(),
            server: server.into(),
        };
        let original = self.maps.pending.get(&tuple)?;
        if original.is_some() {
            self.maps.pending.remove(&tuple)?;
        }
        Ok(original)
    }

    /// How many connects are between their SYN and the server's accept.
    pub(super) fn pending(&self) -> io::Result<usize> {
        self.maps.pending.entries().map(|entries| entries.len())
    }
}
