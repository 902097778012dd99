//! The names for a server's certificate, as Services and endpoints change.

use std::{net::IpAddr, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::Api;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    facts::{Slices, Watched, slices_of},
    names::{self, GracePeriodSet},
};
use crate::{
    kubernetes::{
        CertificateNames, ObjectName,
        watch::{Scope, WatchEvent, WatchLogger, Watcher, follow},
    },
    wait::sleep_until_opt,
};

/// A new certificate serves for all changes within this time.
const SETTLE: Duration = Duration::from_secs(1);

/// Where a server's names come from.
pub struct ServerNamesOptions {
    /// The API server; it need not be there.
    pub client: kube::Client,
    /// The Service at which servers take agents.
    pub service: ObjectName,
    /// The Service under which the cluster's own clients know them.
    pub internal_service: ObjectName,
    /// Further names.
    pub dns: Vec<String>,
    /// Further addresses.
    pub ips: Vec<IpAddr>,
}

/// Follows the Services. Needs `list` and `watch` of both and of the first one's `EndpointSlices`.
pub struct ServerNames {
    options: ServerNamesOptions,
    service: Watched<Service>,
    internal: Watched<Service>,
    slices: Slices,
    /// What the Services named when they were last there: one that is deleted takes no name away.
    of_service: CertificateNames,
    of_internal: CertificateNames,
    told_missing: bool,
    lasting: GracePeriodSet,
    /// this --names--> who asks for the certificate
    names_tx: watch::Sender<Option<CertificateNames>>,
}

impl ServerNames {
    /// Asks nothing of the API server. There are no names until it has told all of them.
    pub fn new(options: ServerNamesOptions) -> (Self, watch::Receiver<Option<CertificateNames>>) {
        let (names_tx, names) = watch::channel(None);
        let this = Self {
            options,
            service: Watched::default(),
            internal: Watched::default(),
            slices: Slices::default(),
            of_service: CertificateNames::default(),
            of_internal: CertificateNames::default(),
            told_missing: false,
            lasting: GracePeriodSet::default(),
            names_tx,
        };
        (this, names)
    }

    /// Follows until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut service = self.watch(&self.options.service);
        let mut internal = self.watch(&self.options.internal_service);
        let mut slices = self.watch_slices();
        let mut of_service = WatchLogger::of("the servers' Service");
        let mut of_internal = WatchLogger::of("the servers' internal Service");
        let mut of_slices = WatchLogger::of("the servers' EndpointSlices");
        let mut due = None;
        loop {
            let heard = tokio::select! {
                Some(watch_event) = service.next() => {
                    of_service.tell(watch_event).map(|event| self.service.apply(event))
                }
                Some(watch_event) = internal.next() => {
                    of_internal.tell(watch_event).map(|event| self.internal.apply(event))
                }
                Some(watch_event) = slices.next() => {
                    of_slices.tell(watch_event).map(|event| self.slices.apply(event))
                }
                () = sleep_until_opt(due) => {
                    due = self.publish(Instant::now());
                    None
                }
                () = shutdown.cancelled() => return,
            };
            if heard.is_some() {
                let settled = Instant::now() + SETTLE;
                due = Some(due.map_or(settled, |due: Instant| due.min(settled)));
            }
        }
    }

    fn watch(&self, service: &ObjectName) -> BoxStream<'static, WatchEvent<Service>> {
        let api = Api::namespaced(self.options.client.clone(), &service.namespace);
        follow(api, &Scope::Named(service.name.clone()), Watcher::Server)
    }

    fn watch_slices(&self) -> BoxStream<'static, WatchEvent<EndpointSlice>> {
        let service = &self.options.service;
        let api = Api::namespaced(self.options.client.clone(), &service.namespace);
        let which = Scope::Labelled(slices_of(&service.name));
        follow(api, &which, Watcher::Server)
    }

    /// Says when to look again although nothing was heard.
    fn publish(&mut self, now: Instant) -> Option<Instant> {
        let listed = self.service.is_listed() && self.internal.is_listed();
        if !listed || !self.slices.is_listed() {
            return None;
        }
        let options = &self.options;
        if let Some(service) = self.service.get() {
            self.of_service = names::of_service(&options.service, service, &self.slices);
        }
        if let Some(service) = self.internal.get() {
            self.of_internal = names::inside(&options.internal_service, service);
        }
        if self.of_service.is_empty() && options.dns.is_empty() && options.ips.is_empty() {
            // Without a name no agent could come; a certificate that is there may name more.
            self.tell_missing();
            return None;
        }
        let mut all = names::given(&options.dns, &options.ips);
        for names in [&self.of_service, &self.of_internal] {
            all.dns.extend(names.dns.iter().cloned());
            all.ips.extend(&names.ips);
        }
        self.lasting
            .set(&names::without_kubelets_name(all), now.into_std());
        let names = Some(self.lasting.names());
        self.names_tx.send_if_modified(|known| {
            let changed = *known != names;
            *known = names;
            changed
        });
        self.lasting.next_change().map(Instant::from_std)
    }

    fn tell_missing(&mut self) {
        if !std::mem::replace(&mut self.told_missing, true) {
            tracing::warn!(
                service = %self.options.service,
                "there is no such Service, so nothing says under which names agents dial this \
                 server: apply culvert's manifests, or give --cert-ips or --cert-dns-names",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::kubernetes::services::testing;
    use crate::kubernetes::testing::absent_api_server;

    fn list(watched: &mut Watched<Service>, object: Option<Service>) {
        watched.apply(Event::Init);
        if let Some(object) = object {
            watched.apply(Event::InitApply(object));
        }
        watched.apply(Event::InitDone);
    }

    fn names_with(dns: &[&str]) -> (ServerNames, watch::Receiver<Option<CertificateNames>>) {
        ServerNames::new(ServerNamesOptions {
            client: absent_api_server(),
            service: testing::name(),
            internal_service: "kube-system/x-tunnel-server-internal-svc".parse().unwrap(),
            dns: dns.iter().map(ToString::to_string).collect(),
            ips: Vec::new(),
        })
    }

    #[tokio::test]
    async fn without_a_service_there_are_names_only_if_somebody_gave_some() {
        for (given, named) in [(&[][..], false), (&["cloud.example"][..], true)] {
            let (mut this, names) = names_with(given);
            list(&mut this.service, None);
            list(&mut this.internal, None);
            this.slices = testing::slices(&[]);
            this.publish(Instant::now());
            assert_eq!(names.borrow().is_some(), named, "{given:?}");
        }
    }

    #[tokio::test]
    async fn names_wait_for_all_that_there_is_to_know_and_do_not_go_with_the_service() {
        let (mut this, names) = names_with(&["cloud.example"]);
        let now = Instant::now();
        list(
            &mut this.service,
            Some(testing::service("NodePort", &json!({}))),
        );
        this.slices = testing::slices(&[("m1", "10.77.0.1", false)]);
        this.publish(now);
        assert_eq!(*names.borrow(), None, "one Service was not heard of");

        list(&mut this.internal, None);
        this.publish(now);
        let first = names.borrow().clone().unwrap();
        for name in ["cloud.example", "x-tunnel-server-svc.kube-system.svc", "m1"] {
            assert!(first.dns.contains(name), "{name} is not in {first}");
        }
        assert!(first.ips.contains(&"10.77.0.1".parse().unwrap()));

        list(&mut this.service, None);
        let again = this.publish(now + 2 * names::STAYS);
        assert_eq!((names.borrow().as_ref(), again), (Some(&first), None));

        // An endpoint that is gone for good goes from the certificate as well, some time.
        list(
            &mut this.service,
            Some(testing::service("NodePort", &json!({}))),
        );
        this.slices = testing::slices(&[("m2", "10.77.0.2", true)]);
        let again = this.publish(now).unwrap();
        assert!(names.borrow().as_ref().unwrap().dns.contains("m1"));
        this.publish(again);
        let last = names.borrow().clone().unwrap();
        assert!(
            last.dns.contains("m2") && !last.dns.contains("m1"),
            "{last}"
        );
    }
}
