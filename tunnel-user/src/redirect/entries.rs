//! What the programs look up, written into their maps: nodes, ports, slots, and what this machine is.

use std::{collections::BTreeSet, io, net::IpAddr};

use tunnel_ebpf::{Address, maps};

use super::{
    ApplyError, Changes, Redirect, Table, diff, gate, kernel_view::KernelView, slots::Slots,
};

impl Redirect {
    /// Makes the kernel capture exactly this table, by writing the differences.
    ///
    /// # Errors
    /// When the table does not fit or the kernel refuses; what was written up to then stays.
    pub fn apply(&mut self, table: &Table) -> Result<Changes, ApplyError> {
        table.check_size()?;
        self.applied = None;
        // Whatever fails from here on is read anew the next time.
        let is_anothers = self.is_anothers()?;
        let config = self.gate.config().map_err(failed("read", maps::CONFIG))?;
        let own_port = config.map(|config| config.port);
        let view = self.view.take();
        let trusted = view.filter(|view| !is_anothers && view.is_trusted());
        let mut kernel = match trusted {
            Some(kernel) => kernel,
            None => self.read(table)?,
        };
        let changes = self.write_difference(table, own_port, &mut kernel)?;
        if changes.incomplete {
            // The first round set groups free that the ports left out now get.
            self.write_difference(table, own_port, &mut kernel)?;
        }
        self.applied = Some(table.addresses());
        self.view = Some(kernel);
        Ok(changes.changes)
    }

    /// Another server may have written: the next table is compared with what the kernel holds, and not with what this
    /// one remembers of it.
    pub fn forget(&mut self) {
        self.view = None;
        self.services.forget();
    }

    /// Whether another server opened the gate, and may be writing.
    pub(super) fn is_anothers(&self) -> Result<bool, ApplyError> {
        let config = self.gate.config().map_err(failed("read", maps::CONFIG))?;
        Ok(config.is_some_and(|config| !self.gate.wrote(&config)))
    }

    fn read(&self, table: &Table) -> Result<KernelView, ApplyError> {
        let slots = self.slots.entries().map_err(failed("read", maps::SLOTS))?;
        let mut slots = Slots::new(slots, gate::monotonic_nanoseconds());
        slots.keep_only(|address| table.nodes.contains_key(&address.octets));
        Ok(KernelView::new(
            self.nodes.entries().map_err(failed("read", maps::NODES))?,
            self.ports.entries().map_err(failed("read", maps::PORTS))?,
            slots,
        ))
    }

    fn write_difference(
        &mut self,
        table: &Table,
        own_port: Option<u16>,
        kernel: &mut KernelView,
    ) -> Result<diff::Diff, ApplyError> {
        kernel.slots.set_now(gate::monotonic_nanoseconds());
        let diff = diff::diff(table, own_port, kernel);
        let nodes = |result: io::Result<()>| result.map_err(failed("write", maps::NODES));
        let ports = |result: io::Result<()>| result.map_err(failed("write", maps::PORTS));
        let set_slots = self.slots.set_all(&diff.set_slots);
        set_slots.map_err(failed("write", maps::SLOTS))?;
        nodes(self.nodes.set_all(&diff.set_nodes))?;
        ports(self.ports.set_all(&diff.set_ports))?;
        ports(self.ports.remove_all(&diff.remove_ports))?;
        nodes(self.nodes.set_all(&diff.settle_nodes))?;
        nodes(self.nodes.remove_all(&diff.remove_nodes))?;
        kernel.has_written(table, &diff);
        Ok(diff)
    }

    /// Tells the programs which addresses this machine has, and by which interfaces it reaches other
    /// machines: who is a client of this machine follows from both.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_surroundings(
        &mut self,
        own_addresses: &BTreeSet<IpAddr>,
        uplinks: &BTreeSet<u32>,
    ) -> Result<(), ApplyError> {
        let addresses = own_addresses.iter().map(|ip| Address::from(*ip));
        self.own_addresses
            .replace_keys(addresses)
            .map_err(failed("write", maps::OWN_ADDRESSES))?;
        self.uplinks
            .replace_keys(uplinks.iter().copied())
            .map_err(failed("write", maps::UPLINKS))
    }
}

pub(super) fn failed(
    action: &'static str,
    map: &'static str,
) -> impl FnOnce(io::Error) -> ApplyError {
    move |source| ApplyError::Map {
        action,
        map,
        source,
    }
}
