//! What agents dial: a decision over the Service and its endpoints.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};

use super::facts::{Slices, external_addresses, ingresses, ip, ips, is_ready, port, type_of};
use crate::{kubernetes::ObjectName, model::ServerAddr};

/// Why a Service says nothing of where its servers are, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoServerAddress {
    /// There is no such Service.
    #[error(
        "Service {0} does not exist: apply culvert's manifests, or name another with --service"
    )]
    NoService(ObjectName),
    /// Its ports are others.
    #[error("Service {0} has no port named tcp, which is where servers take agents")]
    NoPort(ObjectName),
    /// The cloud has not answered yet, or there is none.
    #[error(
        "Service {0} is of type LoadBalancer and has no ingress address: see why in its events, or \
         set its annotation x-tunnel-server-external-addr to HOST:PORT"
    )]
    NoIngress(ObjectName),
    /// No server runs.
    #[error("Service {0} has no endpoints: no culvert server runs")]
    NoEndpoints(ObjectName),
    /// Edge nodes cannot reach what is in the cluster only.
    #[error(
        "Service {service} is of type {kind}, which edge nodes cannot reach: make it NodePort or \
         LoadBalancer, or set its annotation x-tunnel-server-external-addr to HOST:PORT"
    )]
    Internal {
        /// The Service.
        service: ObjectName,
        /// Its type.
        kind: String,
    },
    /// The annotation says something else than it should.
    #[error(
        "annotation x-tunnel-server-external-addr of Service {service} lists {address:?}, which is \
         not HOST:PORT"
    )]
    Annotation {
        /// The Service.
        service: ObjectName,
        /// What it lists.
        address: String,
    },
}

/// What there is to dial, best first, and what is wrong with the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) addresses: Vec<ServerAddr>,
    pub(super) problems: Vec<NoServerAddress>,
}

/// Where the servers of this Service are reached: at its load balancer, where its annotation says,
/// and at the node port of every node with an endpoint.
pub(super) fn reach(name: &ObjectName, service: Option<&Service>, slices: &Slices) -> Reach {
    let mut reach = Reach::default();
    let Some(service) = service else {
        reach.problem(NoServerAddress::NoService(name.clone()));
        return reach;
    };
    let kind = type_of(service);
    let port = port(service);
    if is_balanced(service)
        && let Some(port) = port.and_then(|port| number(port.port))
    {
        ingresses(service)
            .iter()
            .filter_map(|ingress| balancer(ingress, port))
            .for_each(|address| reach.add(address));
    }
    reach.add_annotated(name, service);
    if let Some(port) = node_port(service) {
        let nodes = nodes(slices).into_iter();
        nodes.for_each(|node| reach.add((node, port).into()));
    }
    if reach.addresses.is_empty() {
        reach.problem(match kind {
            _ if port.is_none() => NoServerAddress::NoPort(name.clone()),
            "NodePort" => NoServerAddress::NoEndpoints(name.clone()),
            "LoadBalancer" => NoServerAddress::NoIngress(name.clone()),
            kind => NoServerAddress::Internal {
                service: name.clone(),
                kind: kind.to_owned(),
            },
        });
    }
    reach
}

/// Whether the servers are reached at nodes, which only the endpoints tell.
pub(super) fn needs_endpoints(service: Option<&Service>) -> bool {
    service.and_then(node_port).is_some()
}

fn is_balanced(service: &Service) -> bool {
    type_of(service) == "LoadBalancer" && !ingresses(service).is_empty()
}

/// A load balancer that nobody provides has node ports nevertheless.
fn node_port(service: &Service) -> Option<u16> {
    let has_one = matches!(type_of(service), "NodePort" | "LoadBalancer");
    let node_port = port(service)?.node_port?;
    number(node_port).filter(|_| has_one && !is_balanced(service))
}

impl Reach {
    fn add(&mut self, address: ServerAddr) {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    fn problem(&mut self, problem: NoServerAddress) {
        self.problems.push(problem);
    }

    fn add_annotated(&mut self, name: &ObjectName, service: &Service) {
        for address in external_addresses(service) {
            match address.parse() {
                Ok(address) => self.add(address),
                Err(_) => self.problem(NoServerAddress::Annotation {
                    service: name.clone(),
                    address: address.to_owned(),
                }),
            }
        }
    }
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn balancer(ingress: &LoadBalancerIngress, port: u16) -> Option<ServerAddr> {
    let address = ingress.ip.as_deref().and_then(ip);
    match (address, &ingress.hostname) {
        (Some(ip), _) => Some((ip, port).into()),
        (None, Some(host)) => format!("{host}:{port}").parse().ok(),
        (None, None) => None,
    }
}

/// Nodes with a server that is ready; if there is none, those with one that may be soon.
fn nodes(slices: &Slices) -> Vec<IpAddr> {
    let of = |ready: bool| -> Vec<IpAddr> {
        let endpoints = slices.endpoints();
        let chosen = endpoints.filter(|endpoint| is_ready(endpoint) || !ready);
        let mut nodes: Vec<_> = chosen.flat_map(ips).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    };
    let ready = of(true);
    if ready.is_empty() { of(false) } else { ready }
}

#[cfg(test)]
mod tests;
