//! To which endpoints clients of a Service are sent: kube-proxy's rules, for `internalTrafficPolicy: Cluster`
//! ([`CategorizeEndpoints`](https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/proxy/topology.go)).

use std::{collections::BTreeSet, net::SocketAddr};

use super::objects::{EndpointState, SliceFacts};

/// The endpoints of one family behind the port of this name: those that are ready; if none is, those that are being
/// stopped and still answer.
///
/// None where each is meant for some zones or nodes: who gets which is for kube-proxy to say, which knows where this
/// machine is.
pub(super) fn endpoints(slices: &[&SliceFacts], ipv4: bool, port: &str) -> BTreeSet<SocketAddr> {
    let (mut ready, mut leaving) = (BTreeSet::new(), BTreeSet::new());
    let mut all_have_hints = true;
    for slice in slices {
        for (number, _) in slice.ports.iter().filter(|(_, name)| **name == *port) {
            let of_family = slice.endpoints.iter();
            for endpoint in of_family.filter(|endpoint| endpoint.ip.is_ipv4() == ipv4) {
                let at = SocketAddr::new(endpoint.ip, *number);
                match endpoint.state {
                    EndpointState::Ready => {
                        all_have_hints &= endpoint.has_hints;
                        ready.insert(at);
                    }
                    EndpointState::Leaving => drop(leaving.insert(at)),
                    EndpointState::Unready => {}
                }
            }
        }
    }
    if ready.is_empty() {
        leaving
    } else if all_have_hints {
        BTreeSet::new()
    } else {
        ready
    }
}
