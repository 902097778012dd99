//! Which Services are caught: of those that the cluster tells, the ones with a captured endpoint, as many as fit. A
//! plain computation.

use std::{collections::BTreeMap, net::SocketAddr};

use tunnel_ebpf::{Address, MAX_BACKENDS, MAX_SERVICES, policy, service_flags};

use crate::{
    model::{ServiceEndpoints, ServiceName},
    redirect::{Table, table::Row},
};

/// Everything that is caught on its way to Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    pub(super) services: BTreeMap<SocketAddr, ServiceRow>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceRow {
    pub(super) service: ServiceName,
    /// Of [`service_flags`].
    pub(super) flags: u64,
    /// In order, each once.
    pub(super) backends: Vec<SocketAddr>,
    /// How many of them are captured.
    captured: usize,
}

/// One port of a Service that is caught, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaughtService {
    /// Whose it is.
    pub service: ServiceName,
    /// What clients dial.
    pub cluster: SocketAddr,
    /// Where it leads.
    pub backends: usize,
    /// How many of these are addresses of nodes, on ports that are tunnelled.
    pub tunnelled: usize,
}

/// A port of a Service that leads to nodes, and is not caught.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeftOutService {
    /// Whose it is.
    pub service: ServiceName,
    /// What clients dial.
    pub cluster: SocketAddr,
    /// How many endpoints it has.
    pub backends: usize,
}

impl ServiceTable {
    /// The table of these Services, and what did not fit. `nodes` is what else is captured.
    ///
    /// Each namespace gets room for one of its ports before any gets it for another, and in the order of what clients
    /// dial: nobody can take all of it, and one Service more takes it from none but those behind it.
    pub fn new(services: &[ServiceEndpoints], nodes: &Table) -> (Self, Vec<LeftOutService>) {
        let mut table = Self::default();
        let mut left_out = Vec::new();
        let mut backends = 0;
        for service in in_turn(services) {
            let Some(row) = ServiceRow::new(service, nodes) else {
                continue;
            };
            let more = backends + row.backends.len();
            let is_too_big = row.backends.len() > MAX_BACKENDS / 4;
            if table.services.len() == MAX_SERVICES || more > MAX_BACKENDS || is_too_big {
                left_out.push(LeftOutService {
                    service: row.service,
                    cluster: service.cluster,
                    backends: row.backends.len(),
                });
            } else {
                backends = more;
                table.services.insert(service.cluster, row);
            }
        }
        (table, left_out)
    }

    /// What is caught, for people.
    pub fn caught(&self) -> impl Iterator<Item = CaughtService> {
        self.services.iter().map(|(cluster, row)| CaughtService {
            service: row.service.clone(),
            cluster: *cluster,
            backends: row.backends.len(),
            tunnelled: row.captured,
        })
    }

    /// How many ports of Services are caught.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// How many endpoints they have together.
    pub fn backends(&self) -> usize {
        self.services.values().map(|row| row.backends.len()).sum()
    }
}

/// The first of each namespace, then the second of each, and so on.
fn in_turn(services: &[ServiceEndpoints]) -> impl Iterator<Item = &ServiceEndpoints> {
    let mut of_namespace = BTreeMap::<&str, usize>::new();
    let numbered = services.iter().map(|service| {
        let number = of_namespace.entry(service.service.namespace()).or_default();
        *number += 1;
        (*number, service.cluster, service)
    });
    let mut in_turn: Vec<_> = numbered.collect();
    in_turn.sort_by_key(|(number, cluster, _)| (*number, *cluster));
    in_turn.into_iter().map(|(_, _, service)| service)
}

impl ServiceRow {
    /// `None` if no endpoint of it is captured, or if what clients dial is something else to the redirect.
    fn new(service: &ServiceEndpoints, nodes: &Table) -> Option<Self> {
        if nodes.row(service.cluster).is_some() {
            return None;
        }
        let rows = service.endpoints.iter().filter_map(|at| nodes.row(*at));
        let (mut captured, mut refuses) = (0, false);
        for row in rows {
            captured += 1;
            refuses |= row.closed_gate == policy::REFUSE;
        }
        if captured == 0 {
            return None;
        }
        let affinity = if service.affinity {
            service_flags::AFFINITY
        } else {
            0
        };
        let refuse = if refuses { service_flags::REFUSE } else { 0 };
        Some(Self {
            service: service.service.clone(),
            flags: affinity | refuse,
            backends: service.endpoints.clone(),
            captured,
        })
    }
}

#[cfg(test)]
impl ServiceRow {
    pub(super) fn for_tests(service: ServiceName, backends: Vec<SocketAddr>) -> Self {
        Self {
            service,
            flags: 0,
            captured: backends.len(),
            backends,
        }
    }
}

impl Table {
    /// What is captured of this address, if this port of it is.
    fn row(&self, at: SocketAddr) -> Option<&Row> {
        let row = self.nodes.get(&Address::from(at.ip()).octets)?;
        let port = at.port();
        (self.ports.contains(&port) || row.extra_ports.contains(&port)).then_some(row)
    }
}

#[cfg(test)]
mod tests;
