//! The CAs whose client certificates the API server takes: those of its `--client-ca-file`, which it publishes for
//! servers that know users as it does. The bundle by which the API server itself is verified may have others, whose
//! clients are nobody to it.
//!
//! Nothing is kept on disk: who may do what is asked of the API server too, so without it nobody is let in anyway.

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, runtime::watcher::Event};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    access::{BadEntry, ClusterCas, authorities_in},
    services::Watched,
    watch::{Scope, WatchLogger, Watcher, follow},
};
use crate::observability::chain;

const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";
const KEY: &str = "client-ca-file";

type Cas = Vec<CertificateDer<'static>>;

/// Follows the `ConfigMap` in which the API server publishes them. Needs its Role
/// `extension-apiserver-authentication-reader`.
pub struct ClientCas {
    client: kube::Client,
    published: Watched<ConfigMap>,
    /// What it said when it could last be used.
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
                    self.apply(event);
                },
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn apply(&mut self, event: Event<ConfigMap>) {
        self.published.apply(event);
        if !self.published.is_listed() {
            return;
        }
        let Some(object) = self.published.get() else {
            // The API server makes it anew; to withdraw a CA is to write the others.
            tracing::warn!(
                "{NAMESPACE}/{CONFIG_MAP} is missing: the CAs of clients that were known stay in use"
            );
            return;
        };
        match cas_of(object) {
            Ok(cas) => self.publish(cas),
            Err(error) => tracing::error!(
                error = chain(&error),
                "cannot use the CAs of the API server's clients: those before are in use",
            ),
        }
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

/// None, if the API server takes no client certificates.
fn cas_of(object: &ConfigMap) -> Result<Cas, BadEntry> {
    let published = object.data.as_ref().and_then(|data| data.get(KEY));
    match published {
        Some(text) => authorities_in(&format!("{NAMESPACE}/{CONFIG_MAP}, {KEY},"), text),
        None => Ok(Cas::new()),
    }
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

    #[tokio::test]
    async fn the_cas_are_those_that_the_api_server_publishes_at_the_time() {
        let (mut this, cas) = ClientCas::new(absent_api_server());
        let known = || cas.borrow().clone();
        let [one, two] = [(); 2].map(|()| ClusterCa::new().certificate);
        assert_eq!(known(), [], "nobody is a client before it is known who is");
        this.apply(Event::Init);
        this.apply(Event::InitDone);
        assert_eq!(known(), [], "it is not there");
        this.apply(publishes(&certificate_pem(&one)));
        assert_eq!(known(), std::slice::from_ref(&one));
        this.apply(publishes(&(certificate_pem(&one) + &certificate_pem(&two))));
        assert_eq!(known(), [one.clone(), two.clone()]);
        for nothing in [
            Event::Delete(config(&json!({}))),
            publishes("-----BEGIN CERTIFICATE-----"),
            publishes(""),
            Event::Init,
        ] {
            this.apply(nothing);
            assert_eq!(known(), [one.clone(), two.clone()]);
        }
        this.apply(publishes(&certificate_pem(&two)));
        assert_eq!(known(), [two], "one is withdrawn");
        this.apply(Event::Apply(config(&json!({}))));
        assert_eq!(known(), [], "and so are all");
    }
}
