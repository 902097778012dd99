//! Which pinned maps are used again, and what replaces those that do not fit.
//!
//! A map of another shape is never trusted. Its successor is pinned beside it and takes over its
//! entries where they can be read; once the programs are switched, it takes its place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{Pod, maps::MapData};
use tracing::{info, warn};
use tunnel_ebpf::{Address, NodeEntry, PortRule, maps};

use super::{
    InstallError,
    kernel_map::KernelMap,
    object::{self, MapShape},
    pins::{Pins, pin_error, remove_if_there},
};

/// Names on a BPF file system have no dots.
const SUCCESSOR_SUFFIX: &str = "_next";

/// Where each map is pinned while the programs are loaded.
#[derive(Debug)]
pub(super) struct Plan {
    maps: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    name: &'static str,
    pin: PathBuf,
    /// Where the successor of an incompatible map is made.
    successor: Option<PathBuf>,
}

impl Plan {
    /// Compares what is pinned with what the programs want.
    pub(super) fn new(pins: &Pins) -> Result<Self, InstallError> {
        let shapes = object::shapes()?;
        let maps = maps::ALL
            .into_iter()
            .map(|name| {
                let pin = pins.map(name);
                let successor = pins.map(&format!("{name}{SUCCESSOR_SUFFIX}"));
                remove_if_there(&successor)?;
                let fits = match MapShape::of_pinned(&pin) {
                    Ok(found) => Some(found) == shapes.get(name).copied(),
                    // The loader makes it.
                    Err(_) if !pin.exists() => true,
                    Err(_) => false,
                };
                Ok(Planned {
                    name,
                    pin,
                    successor: (!fits).then_some(successor),
                })
            })
            .collect::<Result<_, InstallError>>()?;
        Ok(Self { maps })
    }

    /// The pins that the loader is to use.
    pub(super) fn pins(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.maps.iter().map(|map| {
            let path = map.successor.as_ref().unwrap_or(&map.pin);
            (map.name, path.as_path())
        })
    }

    /// Whether programs that are attached use other maps than those that are loaded.
    pub(super) fn replaces_any(&self) -> bool {
        self.maps.iter().any(|map| map.successor.is_some())
    }

    /// Whether they use another map of this name.
    pub(super) fn replaces(&self, name: &str) -> bool {
        let mut maps = self.maps.iter();
        maps.any(|map| map.name == name && map.successor.is_some())
    }

    /// Gives the successors what can be read of their predecessors. What cannot comes with the
    /// next table.
    pub(super) fn copy_entries(&self) {
        for map in &self.maps {
            let Some(successor) = &map.successor else {
                continue;
            };
            let copied = match map.name {
                maps::NODES => copy::<Address, NodeEntry>(&map.pin, successor),
                maps::PORTS => copy::<u16, PortRule>(&map.pin, successor),
                _ => Ok(0),
            };
            match copied {
                Ok(entries) => info!(map = map.name, entries, "replaced a map of another shape"),
                Err(error) => warn!(
                    map = map.name,
                    %error,
                    "replaced a map of another shape without its entries"
                ),
            }
        }
    }

    /// Puts the successors in their predecessors' places.
    pub(super) fn commit(&mut self) -> Result<(), InstallError> {
        for map in &mut self.maps {
            if let Some(successor) = map.successor.take() {
                remove_if_there(&map.pin)?;
                fs::rename(&successor, &map.pin).map_err(pin_error("rename", &successor))?;
            }
        }
        Ok(())
    }
}

/// What belongs to sockets stays with them: the map of another version is used further where it has the
/// same shape, so that clients connected before an upgrade still see the address that they dialled.
pub(super) fn share_socket_storage(pins: &Pins) -> Result<(), InstallError> {
    let shapes = object::shapes()?;
    for name in [maps::CLIENT_DST, maps::ACCEPTED_DST] {
        let pin = pins.map(name);
        let wanted = shapes.get(name).copied();
        let same = |other: &PathBuf| MapShape::of_pinned(other).ok() == wanted;
        let former = pins.other_maps(name).into_iter().find(same);
        if let Some(former) = former.filter(|_| !pin.exists()) {
            MapData::from_pin(&former)
                .map_err(io::Error::other)
                .and_then(|map| map.pin(&pin).map_err(io::Error::other))
                .map_err(pin_error("share", &former))?;
        }
    }
    Ok(())
}

fn copy<K: Pod, V: Pod>(from: &Path, to: &Path) -> io::Result<usize> {
    let entries = KernelMap::<K, V>::open(from)?.entries()?;
    KernelMap::<K, V>::open(to)?.set_all(&entries)?;
    Ok(entries.len())
}
