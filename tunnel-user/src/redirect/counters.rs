//! The programs' counters, summed over the CPUs.

use std::io;

use aya::maps::{Map, MapData, PerCpuArray};
pub use tunnel_ebpf::Counters;

use super::pins::Pins;

pub(super) fn read(pins: &Pins) -> io::Result<Counters> {
    let data =
        MapData::from_pin(pins.map(tunnel_ebpf::maps::COUNTERS)).map_err(io::Error::other)?;
    let map: PerCpuArray<_, Counters> = Map::PerCpuArray(data)
        .try_into()
        .map_err(io::Error::other)?;
    let per_cpu = map.get(&0, 0).map_err(io::Error::other)?;
    Ok(per_cpu.iter().copied().sum())
}
