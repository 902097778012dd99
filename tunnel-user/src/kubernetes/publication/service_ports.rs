//! The ports of the servers' Service inside the cluster: what they should be, and what of that to apply.
//!
//! Names and targets are Yurt-Tunnel's
//! (<https://github.com/openyurtio/openyurt/blob/v1.5.0/pkg/yurttunnel/trafficforward/dns/handler.go>). Unlike
//! there, a port that somebody else has written stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{keeper::Plan, ownership::Ownership, problem::Problem};
use crate::model::{HttpsPorts, ListeningPorts, Scheme, SchemedPorts, TunnelPort};

/// One TCP port of the Service, as far as we say what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AppliedPort {
    pub(super) name: String,
    pub(super) port: TunnelPort,
    pub(super) target: IntOrString,
}

/// The kubelet's ports, and those with a scheme, as far as servers listen for them; and of which none can be.
pub(super) fn wanted(
    schemes: &SchemedPorts,
    listening: &ListeningPorts,
) -> (Vec<AppliedPort>, Vec<Problem>) {
    let kubelet = [
        (TunnelPort::KUBELET, Scheme::Https),
        (TunnelPort::KUBELET_READ_ONLY, Scheme::Http),
    ];
    let mut all = schemes.clone();
    // Whatever is listed for them: they are built in.
    all.extend(kubelet);
    let https = all
        .iter()
        .filter_map(|(port, scheme)| (*scheme == Scheme::Https).then_some(*port))
        .collect();
    // What listens there would take their clients to another port.
    let left_out = HttpsPorts::of(&https, &listening.own).left_out;
    all.retain(|port, _| !left_out.contains_key(port));
    let applied = all
        .into_iter()
        .filter_map(|(port, scheme)| {
            let target = listening.behind(port, scheme)?;
            Some(AppliedPort::new(port, target))
        })
        .collect();
    let problems = left_out
        .into_iter()
        .map(|(port, why)| Problem::NotTaken { port, why })
        .collect();
    (applied, problems)
}

/// What to apply to the Service that is there. Whatever is applied is all that we own in it: what we own now
/// and is missing there goes, unless others own it too.
pub(super) fn plan(wanted: &[AppliedPort], service: &Service) -> Plan<Vec<AppliedPort>> {
    let ownership = Ownership::of(service);
    let live = live_ports(service);
    let names_kept = names_kept(service, wanted, &ownership);
    let mut plan = Plan::default();
    let mut applied = Vec::new();
    for wanted in wanted {
        let live = live.get(&wanted.port).copied();
        let (port, problem) = judge(wanted, live, &names_kept, &ownership);
        applied.extend(port);
        plan.problems.extend(problem);
    }
    let owned: BTreeSet<TunnelPort> = applied.iter().map(|applied| applied.port).collect();
    let is_there = |applied: &AppliedPort| {
        live.get(&applied.port)
            .is_some_and(|live| applied.differences(live).is_empty())
    };
    plan.entries = applied.len();
    plan.write = (owned != ownership.ours || !applied.iter().all(is_there)).then_some(applied);
    plan
}

/// What to apply for a port, if anything, and why that is not what is wanted, if it is not.
fn judge(
    wanted: &AppliedPort,
    live: Option<&ServicePort>,
    names_kept: &BTreeSet<&str>,
    ownership: &Ownership,
) -> (Option<AppliedPort>, Option<Problem>) {
    let port = wanted.port;
    if let Some(live) = live {
        let differences = wanted.differences(live);
        let owners = ownership.others(port, &differences);
        if !owners.is_empty() {
            let problem = Problem::PortTaken {
                port,
                owners: owners.into_iter().collect::<Vec<_>>().join(", "),
                wanted: format!("{} to {}", wanted.name, target(&wanted.target)),
            };
            // Ours once: given up, the API server would take parts of it away.
            let shared = ownership
                .ours
                .contains(&port)
                .then(|| AppliedPort::as_is(port, live));
            return (shared, Some(problem));
        }
    }
    let is_named_so = live.is_some_and(|live| live.name.as_deref() == Some(&wanted.name));
    if !is_named_so && names_kept.contains(wanted.name.as_str()) {
        let name = wanted.name.clone();
        return (None, Some(Problem::NameTaken { port, name }));
    }
    (Some(wanted.clone()), None)
}

/// Names of ports that will be there whatever we apply.
fn names_kept<'a>(
    service: &'a Service,
    wanted: &[AppliedPort],
    ownership: &Ownership,
) -> BTreeSet<&'a str> {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    let is_kept = |port: &&ServicePort| {
        let tcp = tunnel_port(port);
        let goes = tcp.is_some_and(|tcp| ownership.is_only_ours(tcp));
        let is_wanted = tcp.is_some_and(|tcp| wanted.iter().any(|wanted| wanted.port == tcp));
        !goes || is_wanted
    };
    ports
        .filter(is_kept)
        .filter_map(|port| port.name.as_deref())
        .collect()
}

fn live_ports(service: &Service) -> BTreeMap<TunnelPort, &ServicePort> {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| Some((tunnel_port(port)?, port)))
        .collect()
}

/// A TCP port's number.
fn tunnel_port(port: &ServicePort) -> Option<TunnelPort> {
    let is_tcp = port
        .protocol
        .as_deref()
        .is_none_or(|protocol| protocol == "TCP");
    let number = u16::try_from(port.port).ok().filter(|_| is_tcp)?;
    TunnelPort::new(number)
}

fn target(target: &IntOrString) -> String {
    match target {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

impl AppliedPort {
    fn new(port: TunnelPort, target: u16) -> Self {
        let name = match port {
            TunnelPort::KUBELET => "https".to_owned(),
            TunnelPort::KUBELET_READ_ONLY => "http".to_owned(),
            port => format!("dnat-{port}"),
        };
        Self {
            name,
            port,
            target: IntOrString::Int(target.into()),
        }
    }

    fn as_is(port: TunnelPort, live: &ServicePort) -> Self {
        Self {
            name: live.name.clone().unwrap_or_default(),
            port,
            target: live
                .target_port
                .clone()
                .unwrap_or(IntOrString::Int(live.port)),
        }
    }

    /// The fields that would change.
    fn differences(&self, live: &ServicePort) -> Vec<&'static str> {
        let name = live.name.as_deref() != Some(&self.name);
        let target = live.target_port.as_ref() != Some(&self.target);
        let fields = [("name", name), ("targetPort", target)];
        fields
            .into_iter()
            .filter_map(|(field, differs)| differs.then_some(field))
            .collect()
    }
}

#[cfg(test)]
mod tests;
