//! Services and `EndpointSlice`s as the watches read them: what matters of them, as small as it can be kept.
//!
//! A large cluster has a hundred thousand endpoints, most of them pods': an endpoint is kept in twenty bytes, and what
//! else an object says is not even parsed. What it means is [`rules`](super::rules)' business.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    NamespaceResourceScope, Resource as _,
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Deserialize;

use crate::{
    kubernetes::services::ip,
    model::{ServiceName, UnfitAddress},
};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service, as its watch reads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "WireService")]
pub(super) struct ServiceObject {
    metadata: ObjectMeta,
    /// `None` if connects to it are not translated here, whatever its endpoints.
    pub(super) facts: Option<ServiceFacts>,
}

/// What a Service says of connects to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceFacts {
    pub(super) cluster_ips: Box<[IpAddr]>,
    /// Its TCP ports, and their names.
    pub(super) ports: Box<[(u16, Box<str>)]>,
    pub(super) affinity: bool,
    /// Its endpoints are pods with certain labels.
    pub(super) selects_pods: bool,
}

/// An `EndpointSlice`, as its watch reads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "WireSlice")]
pub(super) struct SliceObject {
    metadata: ObjectMeta,
    /// Whose endpoints these are; `None` of a slice that nobody is to use.
    pub(super) service: Option<ServiceName>,
    pub(super) facts: SliceFacts,
}

/// Endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SliceFacts {
    /// Its TCP ports, and their names.
    pub(super) ports: Box<[(u16, Box<str>)]>,
    pub(super) endpoints: Box<[EndpointFacts]>,
}

/// One endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndpointFacts {
    pub(super) ip: IpAddr,
    pub(super) state: EndpointState,
    /// It is meant for some zones or nodes above others.
    pub(super) has_hints: bool,
}

/// Whether clients are sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndpointState {
    /// They are.
    Ready,
    /// It is being stopped, and answers still: they are if nobody is ready.
    Leaving,
    /// They are not.
    Unready,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct WireService {
    metadata: WireMetadata,
    #[serde(default)]
    spec: WireSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    ports: Option<Vec<WirePort>>,
    session_affinity: Option<String>,
    internal_traffic_policy: Option<String>,
    selector: Option<BTreeMap<String, String>>,
}

/// Of a Service, and of a slice.
#[derive(Deserialize)]
struct WirePort {
    name: Option<String>,
    port: Option<i32>,
    protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSlice {
    metadata: WireMetadata,
    address_type: Option<String>,
    ports: Option<Vec<WirePort>>,
    endpoints: Option<Vec<WireEndpoint>>,
}

#[derive(Deserialize)]
struct WireEndpoint {
    addresses: Option<Vec<String>>,
    #[serde(default)]
    conditions: WireConditions,
    #[serde(default)]
    hints: WireHints,
}

#[derive(Default, Deserialize)]
struct WireConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireHints {
    for_zones: Option<Vec<serde::de::IgnoredAny>>,
    for_nodes: Option<Vec<serde::de::IgnoredAny>>,
}

impl ServiceObject {
    pub(super) fn name(&self) -> ServiceName {
        name_of(&self.metadata)
    }
}

impl SliceObject {
    /// Names the slice itself, as a [`ServiceName`] names a Service.
    pub(super) fn name(&self) -> ServiceName {
        name_of(&self.metadata)
    }
}

fn name_of(metadata: &ObjectMeta) -> ServiceName {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    ServiceName::new(&text(&metadata.namespace), &text(&metadata.name))
}

impl From<WireService> for ServiceObject {
    fn from(WireService { metadata, spec }: WireService) -> Self {
        let is_external = spec.kind.as_deref() == Some("ExternalName");
        // Only endpoints of this machine count, and no node of the edge is this machine.
        let is_local = spec.internal_traffic_policy.as_deref() == Some("Local");
        let facts = ServiceFacts {
            cluster_ips: spec.cluster_ips(),
            ports: tcp_ports(spec.ports),
            affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
            selects_pods: spec.selector.is_some_and(|labels| !labels.is_empty()),
        };
        let is_translated = !is_external && !is_local;
        let has_any = !facts.cluster_ips.is_empty() && !facts.ports.is_empty();
        Self {
            metadata: metadata.into(),
            facts: (is_translated && has_any).then_some(facts),
        }
    }
}

impl WireSpec {
    /// `None` of a headless one is no address.
    fn cluster_ips(&self) -> Box<[IpAddr]> {
        let all = self.cluster_ips.iter().flatten().chain(&self.cluster_ip);
        let mut all: Vec<IpAddr> = all.filter_map(|text| ip(text)).collect();
        all.sort();
        all.dedup();
        all.into()
    }
}

impl From<WireSlice> for SliceObject {
    fn from(slice: WireSlice) -> Self {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME)).cloned();
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let has_addresses = matches!(slice.address_type.as_deref(), Some("IPv4" | "IPv6"));
        let endpoints = slice.endpoints.unwrap_or_default();
        let endpoints = endpoints.into_iter().filter_map(EndpointFacts::read);
        Self {
            service: service
                .filter(|_| has_addresses)
                .map(|service| ServiceName::new(&namespace, &service)),
            facts: SliceFacts {
                ports: tcp_ports(slice.ports),
                endpoints: endpoints.collect(),
            },
            metadata: slice.metadata.into(),
        }
    }
}

impl EndpointFacts {
    /// Of several addresses the first counts, as for kube-proxy. `None` if no connect can go there from anywhere: the
    /// API server lets no such endpoint pass.
    fn read(endpoint: WireEndpoint) -> Option<Self> {
        let address = endpoint.addresses?.into_iter().next()?;
        let ip = ip(&address)?;
        let unfit = UnfitAddress::check(ip).is_some();
        let WireConditions {
            ready,
            serving,
            terminating,
        } = endpoint.conditions;
        // What is not said of `ready` and `serving` is so, of `terminating` is not.
        let state = if ready.unwrap_or(true) {
            EndpointState::Ready
        } else if serving.unwrap_or(true) && terminating.unwrap_or(false) {
            EndpointState::Leaving
        } else {
            EndpointState::Unready
        };
        let WireHints {
            for_zones,
            for_nodes,
        } = endpoint.hints;
        let mut hints = for_zones.iter().chain(&for_nodes);
        (!unfit).then_some(Self {
            ip,
            state,
            has_hints: hints.any(|hints| !hints.is_empty()),
        })
    }
}

fn tcp_ports(ports: Option<Vec<WirePort>>) -> Box<[(u16, Box<str>)]> {
    let ports = ports.unwrap_or_default().into_iter();
    let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
    let numbered = tcp.filter_map(|port| {
        let number = port.port.and_then(|number| u16::try_from(number).ok())?;
        Some((number, port.name.unwrap_or_default().into()))
    });
    numbered.filter(|(number, _)| *number != 0).collect()
}

impl From<WireMetadata> for ObjectMeta {
    fn from(wire: WireMetadata) -> Self {
        Self {
            name: wire.name,
            namespace: wire.namespace,
            uid: wire.uid,
            resource_version: wire.resource_version,
            ..Self::default()
        }
    }
}

/// Makes a type one that a watch reads, in place of the API's own.
macro_rules! read_instead_of {
    ($api:ident, $object:ident) => {
        impl kube::Resource for $object {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $api::KIND.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $api::GROUP.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $api::VERSION.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $api::URL_PATH_SEGMENT.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

read_instead_of!(Service, ServiceObject);
read_instead_of!(EndpointSlice, SliceObject);
