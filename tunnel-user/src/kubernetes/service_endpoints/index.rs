//! All Services and endpoints that were heard of, and those among them that may lead to nodes: a plain computation.
//!
//! Only Services that changed are looked at again, and all of them when nodes' addresses change.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::{IpAddr, SocketAddr},
};

use kube::runtime::watcher::Event;

use super::{
    objects::{ServiceFacts, ServiceObject, SliceFacts, SliceObject},
    rules::endpoints,
};
use crate::model::{ServiceEndpoints, ServiceName, Snapshot};

/// The API server's own Service: what goes there goes to no node, whatever its endpoints say.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// What is known of the cluster's Services.
pub(super) struct ServiceIndex {
    api_server: ServiceName,
    services: Listed<ServiceFacts>,
    slices: Listed<(ServiceName, SliceFacts)>,
    /// The slices of a Service, by their own names.
    slices_of: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    /// Whose addresses count: those that nodes have, or claim.
    nodes: Snapshot,
    /// To be looked at again.
    changed: BTreeSet<ServiceName>,
    /// What came of the last look.
    found: BTreeMap<ServiceName, Vec<ServiceEndpoints>>,
}

/// What is kept of the objects of a kind, by their names. A list counts only once it is whole.
#[derive(Debug)]
struct Listed<T> {
    facts: BTreeMap<ServiceName, T>,
    listing: BTreeMap<ServiceName, T>,
    is_whole: bool,
}

impl ServiceIndex {
    pub(super) fn new() -> Self {
        let (namespace, name) = API_SERVER;
        Self {
            api_server: ServiceName::new(namespace, name),
            services: Listed::default(),
            slices: Listed::default(),
            slices_of: BTreeMap::new(),
            nodes: Snapshot::default(),
            changed: BTreeSet::new(),
            found: BTreeMap::new(),
        }
    }

    /// Takes an event of the watch on Services; whether something may be another way now.
    pub(super) fn apply_service(&mut self, event: Event<ServiceObject>) -> bool {
        let changed = self
            .services
            .apply(event, |object| (object.name(), object.facts));
        let names = changed.into_iter().map(|(name, _)| name);
        self.look_at(names)
    }

    /// Takes an event of the watch on slices; whether something may be another way now.
    pub(super) fn apply_slice(&mut self, event: Event<SliceObject>) -> bool {
        let changed = self.slices.apply(event, |object| {
            let (name, facts) = (object.name(), object.facts);
            (name, object.service.map(|service| (service, facts)))
        });
        let mut of_services = BTreeSet::new();
        for (slice, before) in changed {
            let now = self.slices.facts.get(&slice);
            if let Some((service, _)) = before {
                let slices = self.slices_of.entry(service.clone()).or_default();
                slices.remove(&slice);
                if slices.is_empty() {
                    self.slices_of.remove(&service);
                }
                of_services.insert(service);
            }
            if let Some((service, _)) = now {
                let slices = self.slices_of.entry(service.clone()).or_default();
                slices.insert(slice);
                of_services.insert(service.clone());
            }
        }
        self.look_at(of_services)
    }

    /// Takes the nodes; whether something may be another way now.
    pub(super) fn apply_nodes(&mut self, snapshot: &Snapshot) -> bool {
        let before = mem::replace(&mut self.nodes, snapshot.clone());
        let mut changed = snapshot.changed_addresses(&before).into_iter();
        let differs =
            changed.any(|address| is_nodes(snapshot, address) != is_nodes(&before, address));
        if differs {
            self.changed.extend(self.services.facts.keys().cloned());
        }
        differs
    }

    fn look_at(&mut self, services: impl IntoIterator<Item = ServiceName>) -> bool {
        let before = self.changed.len();
        self.changed.extend(services);
        self.changed.len() > before
    }

    /// Whether the API server has told of all Services and all slices.
    pub(super) fn is_listed(&self) -> bool {
        self.services.is_whole && self.slices.is_whole
    }

    /// Looks at what has changed. `None` if the Services that may lead to nodes are what they were.
    pub(super) fn update(&mut self) -> Option<Vec<ServiceEndpoints>> {
        let mut differs = false;
        for name in mem::take(&mut self.changed) {
            let found = self.look(&name);
            let before = if found.is_empty() {
                self.found.remove(&name).unwrap_or_default()
            } else {
                let before = self.found.insert(name.clone(), found);
                before.unwrap_or_default()
            };
            differs |= self.found.get(&name).map_or(&[][..], Vec::as_slice) != before;
        }
        differs.then(|| {
            let mut all: Vec<_> = self.found.values().flatten().cloned().collect();
            all.sort_by_key(|service| service.cluster);
            all
        })
    }

    /// A Service's ports that may lead to nodes.
    fn look(&self, name: &ServiceName) -> Vec<ServiceEndpoints> {
        let (Some(facts), Some(slices)) = (self.services.facts.get(name), self.slices_of.get(name))
        else {
            return Vec::new();
        };
        if *name == self.api_server {
            return Vec::new();
        }
        let slices = slices
            .iter()
            .filter_map(|slice| self.slices.facts.get(slice));
        let slices: Vec<&SliceFacts> = slices.map(|(_, facts)| facts).collect();
        let mut found = Vec::new();
        for ip in &facts.cluster_ips {
            for (port, port_name) in &facts.ports {
                let endpoints = endpoints(&slices, ip.is_ipv4(), port_name);
                let mut are_nodes = endpoints.iter().map(|at| is_nodes(&self.nodes, at.ip()));
                let leads_to_nodes = if facts.selects_pods {
                    // A kubelet says which pods run on it, with any labels: it must not get a share of what others'
                    // pods serve.
                    !endpoints.is_empty() && are_nodes.all(|is_node| is_node)
                } else {
                    are_nodes.any(|is_node| is_node)
                };
                if leads_to_nodes {
                    found.push(ServiceEndpoints {
                        cluster: SocketAddr::new(*ip, *port),
                        service: name.clone(),
                        affinity: facts.affinity,
                        endpoints: endpoints.into_iter().collect(),
                    });
                }
            }
        }
        found
    }
}

fn is_nodes(snapshot: &Snapshot, address: IpAddr) -> bool {
    snapshot.owner(address).is_some() || snapshot.conflict(address).is_some()
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            facts: BTreeMap::new(),
            listing: BTreeMap::new(),
            is_whole: false,
        }
    }
}

impl<T: PartialEq> Listed<T> {
    /// Takes an event; says which objects have changed, and what they were. One of which nothing is to be kept is none.
    fn apply<K>(
        &mut self,
        event: Event<K>,
        read: impl Fn(K) -> (ServiceName, Option<T>),
    ) -> Vec<(ServiceName, Option<T>)> {
        match event {
            Event::Init => {
                self.listing = BTreeMap::new();
                Vec::new()
            }
            Event::InitApply(object) => {
                if let (name, Some(facts)) = read(object) {
                    self.listing.insert(name, facts);
                }
                Vec::new()
            }
            Event::InitDone => {
                self.is_whole = true;
                let listed = mem::take(&mut self.listing);
                let mut before = mem::replace(&mut self.facts, listed);
                let mut changed = Vec::new();
                for (name, facts) in &self.facts {
                    let known = before.remove(name);
                    if known.as_ref() != Some(facts) {
                        changed.push((name.clone(), known));
                    }
                }
                changed.extend(before.into_iter().map(|(name, facts)| (name, Some(facts))));
                changed
            }
            Event::Apply(object) => {
                let (name, facts) = read(object);
                self.set(name, facts)
            }
            Event::Delete(object) => self.set(read(object).0, None),
        }
    }

    fn set(&mut self, name: ServiceName, facts: Option<T>) -> Vec<(ServiceName, Option<T>)> {
        if self.facts.get(&name) == facts.as_ref() {
            return Vec::new();
        }
        let before = match facts {
            Some(facts) => self.facts.insert(name.clone(), facts),
            None => self.facts.remove(&name),
        };
        vec![(name, before)]
    }
}

#[cfg(test)]
mod tests;
