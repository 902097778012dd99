//! Makes the table of each snapshot out of the one before, so that the change of one node costs what it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Excluded, NodeMode, Rows, Table};
use crate::model::{GatePolicy, NodeName, Snapshot};

/// Remembers the last table and what it was made of.
#[derive(Debug)]
pub struct TableBuilder {
    default_policy: GatePolicy,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    snapshot: Arc<Snapshot>,
    own: Arc<BTreeSet<IpAddr>>,
    built: Built,
}

/// A table, and what had to be left out of it.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) table: Table,
    pub(super) excluded: BTreeMap<IpAddr, Vec<Excluded>>,
}

impl TableBuilder {
    /// `default_policy` is what nodes get that name no policy.
    pub fn new(default_policy: GatePolicy) -> Self {
        Self {
            default_policy,
            last: None,
        }
    }

    /// Nodes may have other modes than before: the next table is made from nothing.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// The table of the snapshot; `own` are this machine's addresses. `node_mode` says of every node what it said
    /// before, but after [`forget`](Self::forget).
    pub fn build(
        &mut self,
        snapshot: &Arc<Snapshot>,
        own: &Arc<BTreeSet<IpAddr>>,
        node_mode: impl Fn(&NodeName) -> NodeMode,
    ) -> Table {
        let rows = Rows::new(snapshot, own, self.default_policy, &node_mode);
        let last = self.last.take().filter(|last| {
            let before = Rows::new(&last.snapshot, own, self.default_policy, &node_mode);
            last.own == *own && rows.have_the_ports_of(&before)
        });
        let built = match last {
            Some(last) => {
                let changed = snapshot.changed_addresses(&last.snapshot);
                last.built.with(changed, &rows)
            }
            None => Built::new(snapshot, &rows),
        };
        let table = built.table.clone();
        self.last = Some(Last {
            snapshot: Arc::clone(snapshot),
            own: Arc::clone(own),
            built,
        });
        table
    }

    /// What had to be left out of the last table.
    pub fn excluded(&self) -> impl Iterator<Item = &Excluded> {
        let last = self.last.iter();
        last.flat_map(|last| last.built.excluded.values().flatten())
    }
}

impl Built {
    pub(super) fn new(snapshot: &Snapshot, rows: &Rows<'_>) -> Self {
        let mut built = Self::default();
        built.table.ports.clone_from(rows.ports());
        let owned = snapshot.owned_addresses().map(|(address, _)| address);
        let contested = snapshot.conflicts().map(|conflict| conflict.address);
        built.with(owned.chain(contested), rows)
    }

    fn with(mut self, addresses: impl IntoIterator<Item = IpAddr>, rows: &Rows<'_>) -> Self {
        for address in addresses {
            let (row, excluded) = rows.of(address);
            self.table.set(address, row);
            if excluded.is_empty() {
                self.excluded.remove(&address);
            } else {
                self.excluded.insert(address, excluded);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests;
