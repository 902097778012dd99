//! The programs' counters, summed over the CPUs.

use std::{io, iter::Sum, sync::Arc};

use aya::{
    Pod,
    maps::{Map, MapData, PerCpuArray},
};
use tunnel_ebpf::maps;
pub use tunnel_ebpf::{Counters, ServiceCounters};

use super::pins::Pins;

/// Reads the counters; independent of the [`Redirect`](super::Redirect) that it came from.
#[derive(Clone)]
pub struct CounterReader {
    counters: PerCpu<Counters>,
    services: PerCpu<ServiceCounters>,
}

/// Counters of one kind.
struct PerCpu<C: Pod>(Arc<PerCpuArray<MapData, C>>);

impl CounterReader {
    pub(super) fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            counters: PerCpu::open(pins, maps::COUNTERS)?,
            services: PerCpu::open(pins, maps::SERVICE_COUNTS)?,
        })
    }

    /// What the programs counted since their maps were made.
    pub fn read(&self) -> io::Result<Counters> {
        self.counters.read()
    }

    /// What they counted of connects to Services.
    pub fn read_services(&self) -> io::Result<ServiceCounters> {
        self.services.read()
    }

    /// All of it, by name.
    pub fn named(&self) -> io::Result<Vec<(&'static str, u64)>> {
        let (counters, services) = (self.read()?, self.read_services()?);
        Ok(counters.named().chain(services.named()).collect())
    }
}

impl<C: Pod + Sum> PerCpu<C> {
    fn open(pins: &Pins, map: &str) -> io::Result<Self> {
        let data = MapData::from_pin(pins.map(map)).map_err(io::Error::other)?;
        let map = Map::PerCpuArray(data)
            .try_into()
            .map_err(io::Error::other)?;
        Ok(Self(Arc::new(map)))
    }

    fn read(&self) -> io::Result<C> {
        let per_cpu = self.0.get(&0, 0).map_err(io::Error::other)?;
        Ok(per_cpu.iter().copied().sum())
    }
}

impl<C: Pod> Clone for PerCpu<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
