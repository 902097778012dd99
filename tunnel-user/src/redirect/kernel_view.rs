//! What the kernel's tables hold, remembered, so that the change of one node costs what it changes: nothing is read,
//! and only its entries are compared and written.
//!
//! Whoever else may have written them makes it worthless: another server, or a person with `bpftool`. So it is
//! forgotten when this server is put in charge, after every write that fails, and after a while.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use imbl::{OrdMap, ordmap::DiffItem};
use tunnel_ebpf::{Address, NodeEntry, PortRule};

use super::{
    diff::Diff,
    slots::Slots,
    table::{Row, Table},
};

/// Then everything is read anew with the next change.
pub(super) const TRUSTED_FOR: Duration = Duration::from_mins(1);

/// The tables as they were read or written last.
#[derive(Debug)]
pub(super) struct KernelView {
    pub(super) nodes: HashMap<Address, NodeEntry>,
    pub(super) ports: BTreeMap<u16, PortRule>,
    pub(super) slots: Slots,
    written: Option<Written>,
    read_at: Instant,
}

/// What the entries of nodes were made of.
#[derive(Debug)]
struct Written {
    rows: OrdMap<[u8; 16], Row>,
    bits: BTreeMap<u16, u64>,
}

/// The rows of a table that need a look, and the addresses that it has no longer.
#[derive(Debug, Default)]
pub(super) struct Changed<'a> {
    pub(super) rows: Vec<(Address, &'a Row)>,
    pub(super) gone: Vec<Address>,
}

impl KernelView {
    /// What was just read.
    pub(super) fn new(
        nodes: Vec<(Address, NodeEntry)>,
        ports: Vec<(u16, PortRule)>,
        slots: Slots,
    ) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
            ports: ports.into_iter().collect(),
            slots,
            written: None,
            read_at: Instant::now(),
        }
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.read_at.elapsed() < TRUSTED_FOR
    }

    /// What of a table may differ from the kernel, where its ports have these bits.
    pub(super) fn changed<'a>(&self, table: &'a Table, bits: &BTreeMap<u16, u64>) -> Changed<'a> {
        let address = |octets: &[u8; 16]| Address { octets: *octets };
        match &self.written {
            Some(written) if written.bits == *bits => written.changed(table),
            _ => Changed {
                rows: table
                    .nodes
                    .iter()
                    .map(|(octets, row)| (address(octets), row))
                    .collect(),
                gone: self
                    .nodes
                    .keys()
                    .filter(|address| !table.nodes.contains_key(&address.octets))
                    .copied()
                    .collect(),
            },
        }
    }

    /// A table was written, of which this was the difference.
    pub(super) fn has_written(&mut self, table: &Table, diff: &Diff) {
        self.written = Some(Written {
            rows: table.nodes.clone(),
            bits: diff.bits.clone(),
        });
        let written = diff.set_nodes.iter().chain(&diff.settle_nodes);
        self.nodes.extend(written.copied());
        for address in &diff.remove_nodes {
            self.nodes.remove(address);
        }
        self.ports.extend(diff.set_ports.iter().copied());
        for port in &diff.remove_ports {
            self.ports.remove(port);
        }
    }
}

impl Written {
    fn changed<'a>(&self, table: &'a Table) -> Changed<'a> {
        let address = |octets: &[u8; 16]| Address { octets: *octets };
        let mut changed = Changed::default();
        for change in self.rows.diff(&table.nodes) {
            match change {
                DiffItem::Add(octets, row)
                | DiffItem::Update {
                    new: (octets, row), ..
                } => {
                    changed.rows.push((address(octets), row));
                }
                DiffItem::Remove(octets, _) => changed.gone.push(address(octets)),
            }
        }
        changed
    }
}
