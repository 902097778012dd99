//! What a server's certificate has to vouch for: every name and address under which it is dialled.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;

use super::facts::{Slices, external_addresses, ingresses, ip, ips};
use crate::{
    kubernetes::{CertificateNames, ObjectName, certificates::kind::SERVER_NODE_NAME},
    model::ServerAddr,
};

/// A name that is gone stays for this long. Endpoints come and go with every restart of a server,
/// and each change would cost a certificate.
pub(super) const STAYS: Duration = Duration::from_mins(10);

/// Names under which a Service's servers are dialled from outside, and those of its endpoints.
pub(super) fn of_service(
    name: &ObjectName,
    service: &Service,
    slices: &Slices,
) -> CertificateNames {
    let mut names = inside(name, service);
    for ingress in ingresses(service) {
        names.ips.extend(ingress.ip.as_deref().and_then(ip));
        names.dns.extend(ingress.hostname.clone());
    }
    for address in external_addresses(service) {
        if let Ok(address) = address.parse::<ServerAddr>() {
            let (host, _) = address.host_and_port();
            match ip(host) {
                Some(ip) => drop(names.ips.insert(ip)),
                None => drop(names.dns.insert(host.to_owned())),
            }
        }
    }
    for endpoint in slices.endpoints() {
        names.ips.extend(ips(endpoint));
        names.dns.extend(endpoint.node_name.clone());
        names.dns.extend(endpoint.hostname.clone());
    }
    names
}

/// Names of a Service inside the cluster.
pub(super) fn inside(
    ObjectName { namespace, name }: &ObjectName,
    service: &Service,
) -> CertificateNames {
    let spec = service.spec.clone().unwrap_or_default();
    let cluster = spec
        .cluster_ips
        .into_iter()
        .flatten()
        .chain(spec.cluster_ip);
    let addresses = cluster.chain(spec.external_ips.into_iter().flatten());
    CertificateNames {
        dns: BTreeSet::from([
            name.clone(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.cluster.local"),
        ]),
        // A headless Service has the address "None".
        ips: addresses.filter_map(|address| ip(&address)).collect(),
    }
}

/// What the operator adds. Loopback is not there by itself: the cluster's CA signs, and with the key
/// of such a certificate one could pose as the API server to whoever dials it on its own machine.
pub(super) fn given(dns: &[String], ips: &[IpAddr]) -> CertificateNames {
    CertificateNames {
        dns: dns.iter().cloned().collect(),
        ips: ips.iter().map(IpAddr::to_canonical).collect(),
    }
}

/// Without the name by which agents tell a kubelet's certificate from a server's.
pub(super) fn without_kubelets_name(mut names: CertificateNames) -> CertificateNames {
    names
        .dns
        .retain(|name| !name.eq_ignore_ascii_case(SERVER_NODE_NAME));
    names
}

/// Names that grow at once and shrink late.
#[derive(Debug, Default)]
pub(super) struct GracePeriodSet {
    /// When each was last of use; those that still are have none.
    dns: BTreeMap<String, Option<Instant>>,
    ips: BTreeMap<IpAddr, Option<Instant>>,
}

impl GracePeriodSet {
    /// These are of use now.
    pub(super) fn set(&mut self, names: &CertificateNames, now: Instant) {
        update(&mut self.dns, &names.dns, now);
        update(&mut self.ips, &names.ips, now);
    }

    /// Those of use, and those that were not long ago.
    pub(super) fn names(&self) -> CertificateNames {
        CertificateNames {
            dns: self.dns.keys().cloned().collect(),
            ips: self.ips.keys().copied().collect(),
        }
    }

    /// When the next of them goes.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let gone = self.dns.values().chain(self.ips.values()).flatten();
        gone.min().map(|gone| *gone + STAYS)
    }
}

fn update<N: Ord + Clone>(
    known: &mut BTreeMap<N, Option<Instant>>,
    of_use: &BTreeSet<N>,
    now: Instant,
) {
    for (name, gone) in &mut *known {
        *gone = match *gone {
            _ if of_use.contains(name) => None,
            None => Some(now),
            gone => gone,
        };
    }
    known.retain(|_, gone| gone.is_none_or(|gone| gone + STAYS > now));
    let new = of_use.iter().filter(|name| !known.contains_key(*name));
    let new: Vec<_> = new.cloned().collect();
    known.extend(new.into_iter().map(|name| (name, None)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::services::testing::{name, service, slices};

    fn text(names: &CertificateNames) -> Vec<String> {
        let ips = names.ips.iter().map(ToString::to_string);
        names.dns.iter().cloned().chain(ips).collect()
    }

    #[test]
    fn every_name_and_address_of_the_service_is_vouched_for() {
        let service = service(
            "LoadBalancer",
            &json!({
                "ingress": [{"ip": "203.0.113.7"}, {"hostname": "lb.example"}],
                "annotations": {
                    "x-tunnel-server-external-addr": "tunnel.example:443,198.51.100.4:443"
                },
                "spec": {"externalIPs": ["192.0.2.44"]},
            }),
        );
        let slices = slices(&[("m1", "10.77.0.1", false), ("m1", "fd00:77::1", true)]);
        assert_eq!(
            text(&of_service(&name(), &service, &slices)),
            [
                "lb.example",
                "m1",
                "tunnel.example",
                "x-tunnel-server-svc",
                "x-tunnel-server-svc.kube-system",
                "x-tunnel-server-svc.kube-system.svc",
                "x-tunnel-server-svc.kube-system.svc.cluster.local",
                "10.77.0.1",
                "10.96.0.7",
                "192.0.2.44",
                "198.51.100.4",
                "203.0.113.7",
                "fd00:77::1",
                "fd00:96::7",
            ]
        );
    }

    #[test]
    fn a_headless_service_has_names_and_no_address() {
        let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        let names = inside(&name(), &service("ClusterIP", &headless));
        assert!(names.ips.is_empty() && names.dns.len() == 4, "{names}");
    }

    #[test]
    fn what_the_operator_adds_is_there_and_loopback_is_not() {
        let ips = ["::ffff:192.0.2.1".parse().unwrap()];
        let names = given(&["cloud.example".to_owned()], &ips);
        assert_eq!(text(&names), ["cloud.example", "192.0.2.1"]);
    }

    #[test]
    fn a_machine_called_like_a_kubelet_that_may_pose_as_a_server_is_not_named() {
        let slices = slices(&[("tunnel-server", "10.77.0.1", false)]);
        let service = service("NodePort", &json!({}));
        let names = without_kubelets_name(of_service(&name(), &service, &slices));
        assert!(!names.dns.contains("tunnel-server"), "{names}");
        assert!(names.ips.contains(&"10.77.0.1".parse().unwrap()), "{names}");
    }

    fn ips(addresses: &[&str]) -> CertificateNames {
        CertificateNames {
            ips: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..CertificateNames::default()
        }
    }

    #[test]
    fn a_name_that_comes_back_in_time_was_never_gone() {
        let mut lasting = GracePeriodSet::default();
        let start = Instant::now();
        let both = ips(&["10.77.0.1", "10.77.0.2"]);
        lasting.set(&both, start);
        assert_eq!(lasting.next_change(), None);
        lasting.set(&ips(&["10.77.0.1"]), start + STAYS);
        assert_eq!(lasting.names(), both);
        assert_eq!(lasting.next_change(), Some(start + 2 * STAYS));
        lasting.set(&both, start + 2 * STAYS);
        assert_eq!((lasting.names(), lasting.next_change()), (both, None));
    }

    #[test]
    fn a_name_that_stays_away_goes_and_a_new_one_is_there_at_once() {
        let mut lasting = GracePeriodSet::default();
        let start = Instant::now();
        lasting.set(&ips(&["10.77.0.1"]), start);
        let moved = ips(&["10.77.0.3"]);
        lasting.set(&moved, start);
        assert_eq!(lasting.names(), ips(&["10.77.0.1", "10.77.0.3"]));
        lasting.set(&moved, start + STAYS / 2);
        lasting.set(&moved, start + STAYS);
        assert_eq!(lasting.names(), moved);
    }
}
