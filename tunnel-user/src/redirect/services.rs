//! Services with nodes among their endpoints, written into the kernel's maps.
//!
//! ```text
//!  ServiceEndpoints, Table --ServiceTable--> what is to be caught, within the maps' bounds
//!         what the kernel holds --ServiceView--> ServiceDiff --> the maps
//! ```

mod diff;
mod table;
mod view;

use std::io;

use tunnel_ebpf::{Backend, Endpoint, ServiceEntry, maps};

pub use self::{
    diff::ServiceChanges,
    table::{CaughtService, LeftOutService, ServiceTable},
};
use self::{diff::ServiceDiff, view::ServiceView};
use super::{ApplyError, Redirect, entries::failed, kernel_map::KernelMap, pins::Pins};

/// The maps of Services.
#[derive(Debug)]
pub(super) struct ServiceMaps {
    services: KernelMap<Endpoint, ServiceEntry>,
    backends: KernelMap<u64, Backend>,
    ports: KernelMap<u32, u64>,
    owners: KernelMap<u32, u64>,
    /// What they hold, unless somebody else may have written.
    view: Option<ServiceView>,
    /// The least that no Service has had, of those that this server has seen.
    next_id: u32,
}

impl ServiceMaps {
    pub(super) fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            services: KernelMap::open(&pins.map(maps::SERVICES))?,
            backends: KernelMap::open(&pins.map(maps::BACKENDS))?,
            ports: KernelMap::open(&pins.map(maps::SERVICE_PORTS))?,
            owners: KernelMap::open(&pins.map(maps::SERVICE_OWNERS))?,
            view: None,
            next_id: 0,
        })
    }

    pub(super) fn forget(&mut self) {
        self.view = None;
    }

    /// How many ports of Services are caught.
    pub(super) fn len(&self) -> io::Result<usize> {
        Ok(self.services.entries()?.len())
    }

    fn read(&self) -> Result<ServiceView, ApplyError> {
        let services = self.services.entries();
        let backends = self.backends.entries();
        let ports = self.ports.entries();
        Ok(ServiceView::new(
            &services.map_err(failed("read", maps::SERVICES))?,
            &backends.map_err(failed("read", maps::BACKENDS))?,
            &ports.map_err(failed("read", maps::SERVICE_PORTS))?,
            self.next_id,
        ))
    }

    fn owners(&self) -> Result<[u64; 2], ApplyError> {
        let owner = |key| self.owners.get(&key).map(Option::unwrap_or_default);
        let read = failed("read", maps::SERVICE_OWNERS);
        let both = owner(0).and_then(|first| Ok([first, owner(1)?]));
        both.map_err(read)
    }

    fn set_owners(&self, owners: [u64; 2]) -> Result<(), ApplyError> {
        if self.owners()? == owners {
            return Ok(());
        }
        let [first, second] = owners;
        let set = self.owners.set_all(&[(0, first), (1, second)]);
        set.map_err(failed("write", maps::SERVICE_OWNERS))
    }

    /// In an order in which each step leaves the programs right, and the maps never hold more than before and after:
    /// first what goes, Services before their backends, then what comes, backends before their Services.
    fn write(&self, diff: &ServiceDiff) -> Result<(), ApplyError> {
        let services = |result: io::Result<()>| result.map_err(failed("write", maps::SERVICES));
        let backends = |result: io::Result<()>| result.map_err(failed("write", maps::BACKENDS));
        let ports = |result: io::Result<()>| result.map_err(failed("write", maps::SERVICE_PORTS));
        ports(self.ports.set_all(&diff.clear_ports))?;
        services(self.services.remove_all(&diff.remove_services))?;
        backends(self.backends.set_all(&diff.replace_backends))?;
        services(self.services.set_all(&diff.shrink_services))?;
        backends(self.backends.remove_all(&diff.remove_backends))?;
        backends(self.backends.set_all(&diff.add_backends))?;
        services(self.services.set_all(&diff.grow_services))?;
        ports(self.ports.set_all(&diff.set_ports))
    }
}

impl Redirect {
    /// Makes the programs catch connects to exactly these Services, by writing the differences. Whatever of them is
    /// caught at any moment is whole.
    ///
    /// # Errors
    /// When the kernel refuses; what was written up to then stays.
    pub fn apply_services(&mut self, table: &ServiceTable) -> Result<ServiceChanges, ApplyError> {
        let is_anothers = self.is_anothers()?;
        // Whatever fails from here on is read anew the next time.
        let view = self.services.view.take();
        let trusted = view.filter(|view| !is_anothers && view.is_trusted());
        let mut view = match trusted {
            Some(view) => view,
            None => self.services.read()?,
        };
        let diff = view.update(table);
        self.services.next_id = view.next_id();
        self.services.write(&diff)?;
        let in_charge = self.gate_owner()?;
        self.services.set_owners([self.gate.owner(), in_charge])?;
        self.services.view = Some(view);
        Ok(diff.changes)
    }

    /// Takes a predecessor's Services over as they are. False if it left none: what is in the maps is older than it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn adopt_services(&mut self) -> Result<bool, ApplyError> {
        let in_charge = self.gate_owner()?;
        let are_its = in_charge != 0 && self.services.owners()?.contains(&in_charge);
        if are_its {
            let own = self.gate.owner();
            self.services.set_owners([own, in_charge])?;
        }
        Ok(are_its)
    }

    /// Who opened the gate; 0: nobody has.
    fn gate_owner(&self) -> Result<u64, ApplyError> {
        let config = self.gate.config().map_err(failed("read", maps::CONFIG))?;
        Ok(config.map_or(0, |config| config.owner))
    }
}
