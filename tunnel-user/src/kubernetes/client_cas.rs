//! The CAs whose client certificates the API server takes: those of its `--client-ca-file`, which it publishes for
//! servers that know users as it does. The bundle by which the API server itself is verified may have others, whose
//! clients are nobody to it.
//!
//! An API server adds its CAs to those that are there, and takes none away before it has expired
//! ([`combinedClusterAuthenticationInfo`]): what withdraws a CA is to delete the object, which each of them makes anew at
//! once. Whatever cannot be used or is missing makes fewer people users, never more. Nothing is kept on disk: who may do
//! what is asked of the API server too, so without it nobody is let in anyway.
//!
//! [`combinedClusterAuthenticationInfo`]: https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/controlplane/controller/clusterauthenticationtrust/cluster_authentication_trust_controller.go

use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, runtime::watcher::Event};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    access::ClusterCas,
    services::Watched,
    watch::{Scope, WatchLogger, Watcher, follow},
};
use crate::{pki::check_client_ca, wait::sleep_until_opt};

const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";
const KEY: &str = "client-ca-file";
/// How long the object may be missing: an API server that runs makes it anew within a second.
const MISSING: Duration = Duration::from_secs(10);

type Cas = Vec<CertificateDer<'static>>;

/// Follows the `ConfigMap` in which the API server publishes them. Needs its Role
/// `extension-apiserver-authentication-reader`.
pub struct ClientCas {
    client: kube::Client,
    published: Watched<ConfigMap>,
    /// When it counts as gone, if it is missing.
    gone_at: Option<Instant>,
    /// What was published last.
    last: Option<Cas>,
    /// this --CAs--> who verifies clients
    cas_tx: watch::Sender<Cas>,
}

impl ClientCas {
    /// Asks nothing of the API server. Until it has told, there are none.
    pub fn new(client: kube::Client) -> (Self, ClusterCas) {
        let (cas_tx, cas) = watch::channel(Cas::new());
        let this = Self {
            client,
            published: Watched::default(),
            gone_at: None,
            last: None,
            cas_tx,
        };
        (this, cas)
    }

    /// Follows it until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let objects = Api::namespaced(self.client.clone(), NAMESPACE);
        let which = Scope::Named(CONFIG_MAP.to_owned());
        let mut objects = follow::<ConfigMap>(objects, &which, Watcher::Server);
        let mut watch_logger = WatchLogger::of("the CAs of the API server's clients");
        loop {
            tokio::select! {
                Some(watch_event) = objects.next() => if let Some(event) = watch_logger.tell(watch_event) {
                    self.apply(event, Instant::now());
                },
                () = sleep_until_opt(self.gone_at) => self.forget(),
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn apply(&mut self, event: Event<ConfigMap>, now: Instant) {
        self.published.apply(event);
        if !self.published.is_listed() {
            return;
        }
        if let Some(object) = self.published.get() {
            self.gone_at = None;
            self.publish(cas_of(object));
        } else {
            self.gone_at.get_or_insert(now + MISSING);
        }
    }

    /// It has been missing for long enough.
    fn forget(&mut self) {
        self.gone_at = None;
        tracing::warn!(
            object = CONFIG_MAP,
            namespace = NAMESPACE,
            "the API server publishes nothing"
        );
        self.publish(Cas::new());
    }

    fn publish(&mut self, cas: Cas) {
        if self.last.as_ref() == Some(&cas) {
            return;
        }
        if cas.is_empty() {
            tracing::warn!(
                "the API server publishes no CA of clients (--client-ca-file): no certificate makes anybody a user here"
            );
        } else {
            tracing::info!(
                cas = cas.len(),
                "CAs that make clients users of the cluster"
            );
        }
        self.last = Some(cas.clone());
        self.cas_tx.send_replace(cas);
    }
}

/// Those that can be used; none, if the API server takes no client certificates.
fn cas_of(object: &ConfigMap) -> Cas {
    let published = object.data.as_ref().and_then(|data| data.get(KEY));
    let text = published.map_or("", String::as_str);
    let now = OffsetDateTime::now_utc();
    let mut cas = Cas::new();
    for (index, certificate) in CertificateDer::pem_slice_iter(text.as_bytes()).enumerate() {
        let number = index + 1;
        match certificate {
            Ok(certificate) => match check_client_ca(&certificate, now) {
                Ok(()) => cas.push(certificate),
                Err(why) => {
                    tracing::warn!(number, %why, object = CONFIG_MAP, "a certificate makes nobody a user here");
                }
            },
            Err(error) => {
                tracing::warn!(number, %error, object = CONFIG_MAP, "not PEM: what follows is not read");
            }
        }
    }
    cas
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        kubernetes::testing::{ClusterCa, absent_api_server},
        pki::certificate_pem,
    };

    fn config(data: &serde_json::Value) -> ConfigMap {
        serde_json::from_value(json!({ "metadata": {}, "data": data })).unwrap()
    }

    fn publishes(text: &str) -> Event<ConfigMap> {
        Event::Apply(config(
            &json!({ KEY: text, "requestheader-client-ca-file": "x" }),
        ))
    }

    /// With what there is after some events.
    fn after(events: impl IntoIterator<Item = Event<ConfigMap>>) -> (ClientCas, ClusterCas) {
        let (mut this, cas) = ClientCas::new(absent_api_server());
        let listed = [Event::Init, Event::InitDone];
        for event in listed.into_iter().chain(events) {
            this.apply(event, Instant::now());
        }
        (this, cas)
    }

    #[tokio::test]
    async fn the_cas_are_those_that_the_api_server_publishes_at_the_time() {
        let [one, two] = [(); 2].map(|()| ClusterCa::new().certificate);
        let known = |events: Vec<Event<ConfigMap>>| after(events).1.borrow().clone();
        assert_eq!(
            known(vec![]),
            [],
            "nobody is a client before it is known who is"
        );
        let both = publishes(&(certificate_pem(&one) + &certificate_pem(&two)));
        assert_eq!(known(vec![both.clone()]), [one.clone(), two.clone()]);
        let only_two = publishes(&certificate_pem(&two));
        assert_eq!(
            known(vec![both.clone(), only_two]),
            std::slice::from_ref(&two)
        );
        for nobody in [publishes(""), Event::Apply(config(&json!({})))] {
            assert_eq!(known(vec![both.clone(), nobody]), []);
        }
        let a_new_list = vec![both, Event::Init];
        assert_eq!(known(a_new_list), [one, two]);
    }

    #[tokio::test]
    async fn what_is_no_ca_makes_nobody_a_user_and_takes_no_other_with_it() {
        let (ca, server) = ClusterCa::server_of("control-plane");
        let text = certificate_pem(&server.chain[0]) + &certificate_pem(&ca);
        let (_this, cas) = after([publishes(&text)]);
        assert_eq!(*cas.borrow(), [ca]);
        let (_this, cas) = after([publishes(
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        )]);
        assert_eq!(*cas.borrow(), []);
    }

    #[tokio::test]
    async fn a_deleted_object_withdraws_all_unless_it_is_made_anew() {
        let ca = ClusterCa::new().certificate;
        let there = publishes(&certificate_pem(&ca));
        let deleted = Event::Delete(config(&json!({})));
        let (mut this, cas) = after([there.clone(), deleted]);
        assert_eq!(
            *cas.borrow(),
            std::slice::from_ref(&ca),
            "it may come again"
        );
        let gone_at = this.gone_at.unwrap();
        this.apply(Event::Init, gone_at);
        assert_eq!(this.gone_at, Some(gone_at), "a new list is not it");
        this.apply(there, gone_at);
        assert_eq!(this.gone_at, None);
        this.forget();
        assert_eq!(*cas.borrow(), []);
    }
}
