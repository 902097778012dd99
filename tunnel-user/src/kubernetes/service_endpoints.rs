//! Services of the cluster that may lead to nodes, and where they lead.
//!
//! ```text
//!  Services, EndpointSlices --watches--> index --ServiceEndpoints--> who captures connects
//!  Source --snapshots: nodes' addresses---/
//! ```
//! kube-proxy follows the same objects for the same purpose. It translates packets, after the kernel programs have let
//! the connect pass, and no route leads to a node; so these do it before.
//!
//! Without the API server what is known stays.

mod index;
mod objects;
mod rules;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::BoxStream};
use kube::{Api, runtime::watcher::Event};
use tokio::{sync::watch as latest, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    index::ServiceIndex,
    objects::{ServiceObject, SliceObject},
};
use super::{
    source::debouncer::Debouncer,
    watch::{Scope, WatchEvent, WatchLogger, Watcher, follow},
};
use crate::{
    model::{ServiceEndpoints, ServicesReader, SnapshotReader},
    wait::changed,
};

/// Services that another proxy translates, by its own rules.
const OF_KUBE_PROXY: &str = "!service.kubernetes.io/service-proxy-name";
/// The same of slices, without those of headless Services: their clients dial endpoints.
const SLICES_OF_KUBE_PROXY: &str =
    "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// Follows the cluster's Services. Needs `list` and `watch` of all `services` and `endpointslices`.
pub struct ServiceSource {
    client: kube::Client,
    snapshots: SnapshotReader,
    index: ServiceIndex,
    /// this --Services that may lead to nodes--> who captures connects
    services_tx: latest::Sender<Option<Arc<Vec<ServiceEndpoints>>>>,
    /// this --why they are not followed--> status
    trouble_tx: latest::Sender<Option<String>>,
}

/// What is heard of Services.
pub struct ServiceReaders {
    /// Those that may lead to nodes.
    pub services: ServicesReader,
    /// Why they are not followed now.
    pub trouble: latest::Receiver<Option<String>>,
}

/// What stands in the way of each watch.
#[derive(Default)]
struct Troubles {
    services: Option<String>,
    slices: Option<String>,
}

impl ServiceSource {
    /// Asks nothing of the API server.
    pub fn new(client: kube::Client, snapshots: SnapshotReader) -> (Self, ServiceReaders) {
        let (services_tx, services) = latest::channel(None);
        let (trouble_tx, trouble) = latest::channel(None);
        let this = Self {
            client,
            snapshots,
            index: ServiceIndex::new(),
            services_tx,
            trouble_tx,
        };
        (this, ServiceReaders { services, trouble })
    }

    /// Follows until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut services = self.watch::<ServiceObject>(OF_KUBE_PROXY);
        let mut slices = self.watch::<SliceObject>(SLICES_OF_KUBE_PROXY);
        let mut of_services = WatchLogger::of("Services that lead to nodes");
        let mut of_slices = WatchLogger::of("EndpointSlices of Services that lead to nodes");
        let mut troubles = Troubles::default();
        let mut debouncer = Debouncer::default();
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        self.index.apply_nodes(&snapshot);
        loop {
            let changed = tokio::select! {
                Some(watch_event) = services.next() => {
                    note(&watch_event, &mut troubles.services);
                    self.tell(&troubles);
                    let event = of_services.tell(watch_event);
                    event.is_some_and(|event| self.apply_service(event))
                }
                Some(watch_event) = slices.next() => {
                    note(&watch_event, &mut troubles.slices);
                    self.tell(&troubles);
                    let event = of_slices.tell(watch_event);
                    event.is_some_and(|event| self.apply_slice(event))
                }
                () = changed(&mut self.snapshots) => {
                    let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
                    self.index.apply_nodes(&snapshot)
                }
                () = debouncer.due() => {
                    self.publish();
                    debouncer.published(Instant::now());
                    false
                }
                () = shutdown.cancelled() => return,
            };
            if changed && self.index.is_listed() {
                debouncer.ask(Instant::now());
            }
        }
    }

    fn watch<K>(&self, label: &str) -> BoxStream<'static, WatchEvent<K>>
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let api = Api::all(self.client.clone());
        follow(api, &Scope::Labelled(label.to_owned()), Watcher::Server)
    }

    /// The end of the first list makes known that there is nothing, if so.
    fn apply_service(&mut self, event: Event<ServiceObject>) -> bool {
        let listed = matches!(event, Event::InitDone);
        self.index.apply_service(event) || listed
    }

    fn apply_slice(&mut self, event: Event<SliceObject>) -> bool {
        let listed = matches!(event, Event::InitDone);
        self.index.apply_slice(event) || listed
    }

    fn publish(&mut self) {
        let found = self.index.update();
        self.services_tx.send_if_modified(|known| match found {
            Some(services) => {
                *known = Some(Arc::new(services));
                true
            }
            None if known.is_none() => {
                *known = Some(Arc::default());
                true
            }
            None => false,
        });
    }

    fn tell(&self, troubles: &Troubles) {
        let Troubles { services, slices } = troubles;
        let named = [("Services", services), ("EndpointSlices", slices)];
        let named = named.into_iter();
        let trouble = named
            .filter_map(|(what, error)| Some(format!("cannot follow {what}: {}", error.as_ref()?)))
            .reduce(|one, other| format!("{one}; {other}"));
        self.trouble_tx.send_if_modified(|told| {
            let differs = *told != trouble;
            *told = trouble;
            differs
        });
    }
}

fn note<K>(watch_event: &WatchEvent<K>, trouble: &mut Option<String>) {
    *trouble = match watch_event {
        WatchEvent::Lost(error) => Some(error.clone()),
        WatchEvent::Event(_) | WatchEvent::Back => None,
    };
}
