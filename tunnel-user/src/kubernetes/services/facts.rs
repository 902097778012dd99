//! What is known of a Service and its endpoints.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::{
    core::v1::{LoadBalancerIngress, Service, ServicePort},
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::{ResourceExt as _, runtime::watcher::Event};

/// Where servers are reached from outside, by the operator's own word: `host:port`, several with
/// commas.
const EXTERNAL_ADDRESS: &str = "x-tunnel-server-external-addr";
/// The port at which servers take agents.
const PORT_NAME: &str = "tcp";

/// One object, as its watch tells it.
#[derive(Debug)]
pub(in crate::kubernetes) struct Watched<K> {
    object: Option<K>,
    /// Seen in the list that is under way.
    listing: Option<K>,
    listed: bool,
}

/// The slices of a Service, as their watch tells them.
#[derive(Debug, Default)]
pub(super) struct Slices {
    by_name: BTreeMap<String, EndpointSlice>,
    listing: BTreeMap<String, EndpointSlice>,
    listed: bool,
}

impl<K> Default for Watched<K> {
    fn default() -> Self {
        Self {
            object: None,
            listing: None,
            listed: false,
        }
    }
}

impl<K> Watched<K> {
    pub(in crate::kubernetes) fn apply(&mut self, event: Event<K>) {
        match event {
            Event::Apply(object) => self.object = Some(object),
            Event::Delete(_) => self.object = None,
            Event::Init => self.listing = None,
            Event::InitApply(object) => self.listing = Some(object),
            Event::InitDone => {
                self.object = self.listing.take();
                self.listed = true;
            }
        }
    }

    /// Whether it is known if the object exists.
    pub(in crate::kubernetes) fn is_listed(&self) -> bool {
        self.listed
    }

    pub(in crate::kubernetes) fn get(&self) -> Option<&K> {
        self.object.as_ref()
    }
}

impl Slices {
    pub(super) fn apply(&mut self, event: Event<EndpointSlice>) {
        match event {
            Event::Apply(slice) => drop(self.by_name.insert(slice.name_any(), slice)),
            Event::Delete(slice) => drop(self.by_name.remove(&slice.name_any())),
            Event::Init => self.listing.clear(),
            Event::InitApply(slice) => drop(self.listing.insert(slice.name_any(), slice)),
            Event::InitDone => {
                self.by_name = std::mem::take(&mut self.listing);
                self.listed = true;
            }
        }
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Every endpoint, ready or not.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.by_name.values().flat_map(|slice| &slice.endpoints)
    }
}

/// The label that a Service's slices carry.
pub(super) fn slices_of(service: &str) -> String {
    format!("kubernetes.io/service-name={service}")
}

/// Whether clients should be sent there; an endpoint that does not say is ready.
pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready) != Some(false)
}

/// The endpoint's addresses, IPv4 as such.
pub(super) fn ips(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    let addresses = endpoint.addresses.iter();
    addresses.filter_map(|address| ip(address))
}

pub(in crate::kubernetes) fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

pub(in crate::kubernetes) fn type_of(service: &Service) -> &str {
    let spec = service.spec.as_ref();
    let kind = spec.and_then(|spec| spec.type_.as_deref());
    kind.unwrap_or("ClusterIP")
}

/// The port for agents: the one that is called so, or the only one.
pub(super) fn port(service: &Service) -> Option<&ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_deref()?;
    let called = |port: &&ServicePort| port.name.as_deref() == Some(PORT_NAME);
    match ports {
        [only] => Some(only),
        ports => ports.iter().find(called),
    }
}

pub(super) fn ingresses(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref());
    ingress.unwrap_or_default()
}

/// What the annotation lists.
pub(super) fn external_addresses(service: &Service) -> impl Iterator<Item = &str> {
    let listed = service.annotations().get(EXTERNAL_ADDRESS);
    let listed = listed.into_iter().flat_map(|listed| listed.split(','));
    listed.map(str::trim).filter(|address| !address.is_empty())
}
