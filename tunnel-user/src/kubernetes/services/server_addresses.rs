//! An agent's way to the servers: the Service's addresses, as they change, and on disk for a start
//! without the API server.

use std::path::PathBuf;

use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::Api;
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    NoServerAddress,
    addresses::{Reach, needs_endpoints, reach},
    facts::{Slices, Watched, slices_of},
};
use crate::{
    kubernetes::{
        ObjectName,
        watch::{Scope, WatchEvent, WatchLogger, Watcher, follow},
    },
    model::ServerAddr,
    observability::chain,
    pki::{PrivateDir, StoreError},
    wait::sleep_until_opt,
};

/// What was known last, one address to a line.
const FILE: &str = "servers";
/// Services and slices change in several steps; one list serves for all within this time.
const SETTLE: Duration = Duration::from_millis(200);

/// What finding servers needs.
pub struct ServerAddressesOptions {
    /// The API server; it need not be there.
    pub client: kube::Client,
    /// The Service at which servers take agents.
    pub service: ObjectName,
    /// Where the addresses are kept for the next start.
    pub state_dir: PathBuf,
}

/// Follows the Service. Needs `list` and `watch` of that Service and of its namespace's
/// `EndpointSlices`.
pub struct ServerAddresses {
    client: kube::Client,
    service: ObjectName,
    dir: PrivateDir,
    known: Watched<Service>,
    slices: Slices,
    /// this --addresses, best first--> session manager
    addresses_tx: watch::Sender<Vec<ServerAddr>>,
    /// this --why there is no address--> readiness
    problem_tx: watch::Sender<Option<String>>,
    told: Vec<NoServerAddress>,
}

impl ServerAddresses {
    /// Starts with the addresses that were known last, if any; asks nothing of the API server.
    ///
    /// # Errors
    /// When the directory is not usable. A damaged file is not an error.
    pub fn new(options: ServerAddressesOptions) -> Result<Self, StoreError> {
        let ServerAddressesOptions {
            client,
            service,
            state_dir,
        } = options;
        let dir = PrivateDir::create(&state_dir)?;
        let saved = read(&dir);
        let problem = saved
            .is_empty()
            .then(|| format!("Service {service} was not heard of yet"));
        Ok(Self {
            client,
            service,
            dir,
            known: Watched::default(),
            slices: Slices::default(),
            addresses_tx: watch::Sender::new(saved),
            problem_tx: watch::Sender::new(problem),
            told: Vec::new(),
        })
    }

    /// The addresses to dial, best first. Once there are any, there are always some.
    pub fn addresses(&self) -> watch::Receiver<Vec<ServerAddr>> {
        self.addresses_tx.subscribe()
    }

    /// Why there is no address to dial, while there is none.
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem_tx.subscribe()
    }

    /// Follows until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let ObjectName { namespace, name } = &self.service;
        let services = Api::namespaced(self.client.clone(), namespace);
        let slices = Api::namespaced(self.client.clone(), namespace);
        let named = Scope::Named(name.clone());
        let of_service = Scope::Labelled(slices_of(name));
        let mut services: BoxStream<'_, WatchEvent<Service>> =
            follow(services, &named, Watcher::Agent);
        let mut slices: BoxStream<'_, WatchEvent<EndpointSlice>> =
            follow(slices, &of_service, Watcher::Agent);
        let (mut of_services, mut of_slices) = (
            WatchLogger::of("the servers' Service"),
            WatchLogger::of("the servers' EndpointSlices"),
        );
        let mut due = None;
        loop {
            tokio::select! {
                Some(watch_event) = services.next() => if let Some(event) = of_services.tell(watch_event) {
                    self.known.apply(event);
                    due.get_or_insert(Instant::now() + SETTLE);
                },
                Some(watch_event) = slices.next() => if let Some(event) = of_slices.tell(watch_event) {
                    self.slices.apply(event);
                    due.get_or_insert(Instant::now() + SETTLE);
                },
                () = sleep_until_opt(due) => {
                    due = None;
                    self.publish();
                }
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Half of what there is to know would take addresses away for a moment.
    fn publish(&mut self) {
        let service = self.known.get();
        if !self.known.is_listed() || (needs_endpoints(service) && !self.slices.is_listed()) {
            return;
        }
        let Reach {
            addresses,
            problems,
        } = reach(&self.service, service, &self.slices);
        for problem in problems
            .iter()
            .filter(|problem| !self.told.contains(problem))
        {
            tracing::warn!(%problem, "cannot find servers");
        }
        let problem = problems.last().map(ToString::to_string);
        self.told = problems;
        if addresses.is_empty() {
            // What was known may still lead somewhere, and the Service may come back.
            if self.addresses_tx.borrow().is_empty() {
                self.problem_tx.send_replace(problem);
            }
            return;
        }
        self.problem_tx.send_replace(None);
        let changed = self.addresses_tx.send_if_modified(|known| {
            let changed = *known != addresses;
            *known = addresses;
            changed
        });
        if changed {
            self.save();
        }
    }

    fn save(&self) {
        let addresses = self.addresses_tx.borrow();
        let lines: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let lines = lines.join("\n");
        if let Err(error) = self.dir.write(FILE, lines.as_bytes()) {
            tracing::warn!(
                error = chain(&error),
                "cannot keep the servers' addresses: a start without the API server would find none",
            );
        }
    }
}

/// The addresses that were kept; none, with a warning, where they cannot be read.
fn read(dir: &PrivateDir) -> Vec<ServerAddr> {
    let content = match dir.read(FILE) {
        Ok(content) => content.unwrap_or_default(),
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(
                error,
                "starting without the servers' addresses that were known"
            );
            return Vec::new();
        }
    };
    let lines = String::from_utf8_lossy(&content).into_owned();
    lines.lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::kubernetes::services::testing::{name, service, slices};
    use crate::kubernetes::testing::absent_api_server;

    fn options(dir: &tempfile::TempDir) -> ServerAddressesOptions {
        ServerAddressesOptions {
            client: absent_api_server(),
            service: name(),
            state_dir: dir.path().join("state"),
        }
    }

    fn apply(this: &mut ServerAddresses, object: Option<Service>) {
        this.known.apply(Event::Init);
        if let Some(object) = object {
            this.known.apply(Event::InitApply(object));
        }
        this.known.apply(Event::InitDone);
        this.publish();
    }

    #[tokio::test]
    async fn addresses_outlive_the_service_and_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut this = ServerAddresses::new(options(&dir)).unwrap();
        let (addresses, problems) = (this.addresses(), this.problem());
        assert!(addresses.borrow().is_empty());
        assert!(
            problems
                .borrow()
                .as_ref()
                .unwrap()
                .contains("x-tunnel-server-svc")
        );
        apply(&mut this, Some(service("NodePort", &json!({}))));
        assert!(
            addresses.borrow().is_empty(),
            "the endpoints are not known yet"
        );
        this.slices = slices(&[("m1", "10.77.0.1", true)]);
        this.publish();
        let expected: Vec<ServerAddr> = vec!["10.77.0.1:31008".parse().unwrap()];
        assert_eq!(
            (&*addresses.borrow(), &*problems.borrow()),
            (&expected, &None)
        );

        apply(&mut this, None);
        assert_eq!(
            (&*addresses.borrow(), &*problems.borrow()),
            (&expected, &None)
        );

        let again = ServerAddresses::new(options(&dir)).unwrap();
        let (addresses, problems) = (again.addresses(), again.problem());
        assert_eq!(
            (&*addresses.borrow(), &*problems.borrow()),
            (&expected, &None)
        );
    }

    #[tokio::test]
    async fn a_load_balancer_is_dialled_whatever_its_endpoints() {
        let dir = tempfile::tempdir().unwrap();
        let mut this = ServerAddresses::new(options(&dir)).unwrap();
        let ingress = json!({"ingress": [{"ip": "203.0.113.7"}]});
        apply(&mut this, Some(service("LoadBalancer", &ingress)));
        let expected: Vec<ServerAddr> = vec!["203.0.113.7:10262".parse().unwrap()];
        assert_eq!(*this.addresses().borrow(), expected);
    }

    #[tokio::test]
    async fn without_any_address_the_reason_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut this = ServerAddresses::new(options(&dir)).unwrap();
        let problems = this.problem();
        this.slices = slices(&[]);
        apply(&mut this, Some(service("ClusterIP", &json!({}))));
        let told = problems.borrow().clone().unwrap();
        assert!(told.contains("edge nodes cannot reach"), "{told}");
    }
}
