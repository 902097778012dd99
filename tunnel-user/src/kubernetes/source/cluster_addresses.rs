//! Addresses that are the cluster's own, so that no node may claim them: those of its API server,
//! and its Services' `ClusterIP`s.
//!
//! Clients dial `ClusterIP`s before anybody translates them, so a node that could claim one would get
//! what the control plane sends to that Service. Services themselves are watched, not the
//! `ServiceCIDR` objects: those exist from Kubernetes 1.33 on, while every version has Services,
//! and each kube-proxy watches the same. A `ClusterIP` that is given to a Service later is taken away
//! from a node that claimed it in advance.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use futures_util::StreamExt as _;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Api, Resource, runtime::watcher::Event};
use serde::{Deserialize, Serialize};
use tokio::sync::watch as latest;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::{
    ApiServerAddresses,
    watch::{Scope, WatchEvent, Watcher, follow},
};

/// Where the API server itself writes its endpoints.
const API_SERVER: (&str, &str) = ("default", "kubernetes.io/service-name=kubernetes");

/// The addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClusterAddresses {
    /// The API servers, as they say themselves.
    endpoints: BTreeSet<IpAddr>,
    /// The API server, as this server reaches it.
    host: BTreeSet<IpAddr>,
    services: BTreeSet<IpAddr>,
}

/// What is known of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) addresses: ClusterAddresses,
    /// Why some may be missing.
    pub(super) trouble: Option<String>,
    /// Whether everything has been asked, with or without success.
    pub(super) asked: bool,
}

/// Follows them.
pub(super) struct Follower {
    client: kube::Client,
    host_rx: ApiServerAddresses,
    /// this --addresses--> source
    known_tx: latest::Sender<Known>,
    services: Watched<Service>,
    endpoints: Watched<EndpointSlice>,
}

/// The addresses of objects of one kind.
struct Watched<K> {
    by_uid: BTreeMap<String, Vec<IpAddr>>,
    listing: BTreeMap<String, Vec<IpAddr>>,
    addresses_of: fn(&K) -> Vec<IpAddr>,
    state: WatchState,
}

#[derive(Debug, PartialEq, Eq)]
enum WatchState {
    /// Nothing has been heard.
    Asking,
    /// The list is whole.
    Listed,
    /// It cannot be followed; whether it was, before.
    Lost { listed: bool, error: String },
}

impl ClusterAddresses {
    pub(super) fn is_api_server(&self, address: IpAddr) -> bool {
        self.endpoints.contains(&address) || self.host.contains(&address)
    }

    pub(super) fn is_service(&self, address: IpAddr) -> bool {
        self.services.contains(&address)
    }

    /// The addresses that are something else by the other.
    pub(super) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = IpAddr> + 'a {
        let endpoints = self.endpoints.symmetric_difference(&other.endpoints);
        let hosts = self.host.symmetric_difference(&other.host);
        let services = self.services.symmetric_difference(&other.services);
        endpoints.chain(hosts).chain(services).copied()
    }

    #[cfg(test)]
    pub(super) fn of(api_server: &[&str], services: &[&str]) -> Self {
        let set = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect();
        Self {
            endpoints: set(api_server),
            host: BTreeSet::new(),
            services: set(services),
        }
    }
}

impl Follower {
    /// Starts with what was saved.
    pub(super) fn new(
        client: kube::Client,
        host_rx: ApiServerAddresses,
        saved: ClusterAddresses,
    ) -> (Self, latest::Receiver<Known>) {
        let (known_tx, known) = latest::channel(Known {
            addresses: saved,
            ..Known::default()
        });
        let this = Self {
            client,
            host_rx,
            known_tx,
            services: Watched::of(cluster_ips),
            endpoints: Watched::of(endpoints),
        };
        (this, known)
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let (namespace, label) = API_SERVER;
        let mut services = follow(
            Api::<Service>::all(self.client.clone()),
            &Scope::All,
            Watcher::Server,
        );
        let mut endpoints = follow(
            Api::<EndpointSlice>::namespaced(self.client.clone(), namespace),
            &Scope::Labelled(label.to_owned()),
            Watcher::Server,
        );
        self.publish();
        loop {
            let changed = tokio::select! {
                Some(watch_event) = services.next() => self.services.apply(watch_event),
                Some(watch_event) = endpoints.next() => self.endpoints.apply(watch_event),
                Ok(()) = self.host_rx.changed() => true,
                () = shutdown.cancelled() => return,
            };
            if changed {
                self.publish();
            }
        }
    }

    fn publish(&mut self) {
        let host = self.host_rx.borrow_and_update().clone();
        let troubles = [
            ("Services", self.services.trouble()),
            ("the API server's endpoints", self.endpoints.trouble()),
        ];
        let troubles = troubles.into_iter();
        let trouble = troubles
            .filter_map(|(what, error)| Some(format!("cannot follow {what}: {}", error?)))
            .reduce(|one, other| format!("{one}; {other}"));
        let asked = self.services.is_asked() && self.endpoints.is_asked() && host.is_some();
        self.known_tx.send_if_modified(|known| {
            let before = known.clone();
            if let Some(services) = self.services.all() {
                known.addresses.services = services;
            }
            // A Service without endpoints is an API server that has not written them yet.
            if let Some(endpoints) = self.endpoints.all().filter(|all| !all.is_empty()) {
                known.addresses.endpoints = endpoints;
            }
            if let Some(host) = host.filter(|host| !host.is_empty()) {
                known.addresses.host.clone_from(&host);
            }
            known.trouble = trouble;
            known.asked |= asked;
            before != *known
        });
    }
}

impl<K: Resource> Watched<K> {
    fn of(addresses_of: fn(&K) -> Vec<IpAddr>) -> Self {
        Self {
            by_uid: BTreeMap::new(),
            listing: BTreeMap::new(),
            addresses_of,
            state: WatchState::Asking,
        }
    }

    /// Whether that is more than a part of a list.
    fn apply(&mut self, watch_event: WatchEvent<K>) -> bool {
        let is_part = matches!(
            watch_event,
            WatchEvent::Event(Event::Init | Event::InitApply(_))
        );
        match watch_event {
            WatchEvent::Event(event) => self.hear_event(event),
            WatchEvent::Back => {
                if let WatchState::Lost { listed, .. } = self.state {
                    self.state = if listed {
                        WatchState::Listed
                    } else {
                        WatchState::Asking
                    };
                }
            }
            WatchEvent::Lost(error) => {
                let listed = self.is_listed();
                self.state = WatchState::Lost { listed, error };
            }
        }
        !is_part
    }

    fn hear_event(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                let (uid, addresses) = self.read(&object);
                self.listing.insert(uid, addresses);
            }
            Event::InitDone => {
                self.by_uid = mem::take(&mut self.listing);
                self.state = WatchState::Listed;
            }
            Event::Apply(object) => {
                let (uid, addresses) = self.read(&object);
                self.by_uid.insert(uid, addresses);
            }
            Event::Delete(object) => drop(self.by_uid.remove(&self.read(&object).0)),
        }
    }

    fn read(&self, object: &K) -> (String, Vec<IpAddr>) {
        let uid = object.meta().uid.clone().unwrap_or_default();
        (uid, (self.addresses_of)(object))
    }

    /// All of them, once the API server has told.
    fn all(&self) -> Option<BTreeSet<IpAddr>> {
        let all = || self.by_uid.values().flatten().copied().collect();
        self.is_listed().then(all)
    }

    fn is_listed(&self) -> bool {
        match self.state {
            WatchState::Asking => false,
            WatchState::Listed => true,
            WatchState::Lost { listed, .. } => listed,
        }
    }

    fn is_asked(&self) -> bool {
        self.state != WatchState::Asking
    }

    fn trouble(&self) -> Option<&str> {
        match &self.state {
            WatchState::Lost { error, .. } => Some(error),
            WatchState::Asking | WatchState::Listed => None,
        }
    }
}

/// `None` of a headless one is no address.
fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut all: Vec<IpAddr> = all.filter_map(|text| ip(text)).collect();
    all.sort();
    all.dedup();
    all
}

fn endpoints(slice: &EndpointSlice) -> Vec<IpAddr> {
    let all = slice.endpoints.iter().flat_map(|each| &each.addresses);
    all.filter_map(|text| ip(text)).collect()
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests;
