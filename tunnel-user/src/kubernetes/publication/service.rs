//! The Service by which clients reach edge nodes by name: its address.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use super::problem::Problem;
use crate::kubernetes::{
    ObjectName,
    services::{ip, type_of},
};

/// Its `ClusterIPs`, or why there are none.
pub(super) type ServiceAddress = Result<Vec<IpAddr>, Problem>;

pub(super) fn address_of(name: &ObjectName, service: Option<&Service>) -> ServiceAddress {
    let service = service.ok_or_else(|| Problem::NoService(name.clone()))?;
    let spec = service
        .spec
        .as_ref()
        .filter(|_| type_of(service) != "ExternalName");
    let all = spec
        .and_then(|spec| spec.cluster_ips.as_deref())
        .unwrap_or_default();
    let one = spec.and_then(|spec| spec.cluster_ip.as_deref());
    // A headless Service has the address "None".
    let listed: Vec<IpAddr> = all.iter().filter_map(|text| ip(text)).collect();
    let addresses = if listed.is_empty() {
        one.and_then(ip).into_iter().collect()
    } else {
        listed
    };
    if addresses.is_empty() {
        return Err(Problem::NoClusterIp(name.clone()));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn address(spec: &Value) -> ServiceAddress {
        let service = serde_json::from_value(json!({ "spec": spec })).unwrap();
        address_of(&name(), Some(&service))
    }

    fn name() -> ObjectName {
        "kube-system/internal".parse().unwrap()
    }

    #[test]
    fn the_addresses_are_the_services_own_or_it_says_why_there_are_none() {
        let ips = |ips: &[&str]| {
            Ok(ips
                .iter()
                .map(|ip| ip.parse().unwrap())
                .collect::<Vec<IpAddr>>())
        };
        let none = || Err(Problem::NoClusterIp(name()));
        for (spec, expected) in [
            (
                json!({ "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"] }),
                ips(&["10.96.0.7", "fd00::7"]),
            ),
            (json!({ "clusterIP": "10.96.0.7" }), ips(&["10.96.0.7"])),
            (
                json!({ "clusterIP": "None", "clusterIPs": ["None"] }),
                none(),
            ),
            (json!({ "clusterIP": "" }), none()),
            (json!({}), none()),
            (
                json!({ "type": "ExternalName", "clusterIP": "10.96.0.7", "externalName": "a.example" }),
                none(),
            ),
        ] {
            assert_eq!(address(&spec), expected, "{spec}");
        }
        assert_eq!(address_of(&name(), None), Err(Problem::NoService(name())));
    }
}
