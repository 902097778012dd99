//! Services and endpoints as the API server writes them.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::facts::Slices;
use crate::kubernetes::ObjectName;

pub(super) fn name() -> ObjectName {
    "kube-system/x-tunnel-server-svc".parse().unwrap()
}

/// A Service of this type, with what `more` says of spec, status and annotations.
pub(super) fn service(kind: &str, more: &Value) -> Service {
    let mut spec = json!({
        "type": kind,
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7", "fd00:96::7"],
        "ports": [{"name": "tcp", "port": 10262, "nodePort": 31008}],
    });
    if let Some(others) = more["spec"].as_object() {
        spec.as_object_mut().unwrap().extend(others.clone());
    }
    let service = json!({
        "metadata": {
            "name": "x-tunnel-server-svc",
            "namespace": "kube-system",
            "annotations": more["annotations"],
        },
        "spec": spec,
        "status": {"loadBalancer": {"ingress": more["ingress"]}},
    });
    serde_json::from_value(service).unwrap()
}

/// Endpoints of these nodes: address, and whether it is ready.
pub(super) fn slices(endpoints: &[(&str, &str, bool)]) -> Slices {
    let mut slices = Slices::default();
    slices.apply(Event::Init);
    for (number, (node, address, ready)) in endpoints.iter().enumerate() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": format!("slice-{number}")},
            "addressType": if address.contains(':') { "IPv6" } else { "IPv4" },
            "endpoints": [{
                "addresses": [address],
                "nodeName": node,
                "conditions": {"ready": ready},
            }],
        }))
        .unwrap();
        slices.apply(Event::InitApply(slice));
    }
    slices.apply(Event::InitDone);
    slices
}
