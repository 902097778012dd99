//! The programs' counters, summed over the CPUs.

use std::{io, sync::Arc};

use aya::maps::{Map, MapData, PerCpuArray};
pub use tunnel_ebpf::Counters;

use super::pins::Pins;

/// Reads the counters; independent of the [`Redirect`](super::Redirect) that it came from.
#[derive(Clone)]
pub struct CounterReader {
    map: Arc<PerCpuArray<MapData, Counters>>,
}

impl CounterReader {
    pub(super) fn open(pins: &Pins) -> io::Result<Self> {
        let data =
            MapData::from_pin(pins.map(tunnel_ebpf::maps::COUNTERS)).map_err(io::Error::other)?;
        let map = Map::PerCpuArray(data)
            .try_into()
            .map_err(io::Error::other)?;
        Ok(Self { map: Arc::new(map) })
    }

    /// What the programs counted since their maps were made.
    pub fn read(&self) -> io::Result<Counters> {
        let per_cpu = self.map.get(&0, 0).map_err(io::Error::other)?;
        Ok(per_cpu.iter().copied().sum())
    }
}
