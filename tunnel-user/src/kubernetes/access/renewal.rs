//! Follows the files that the way to the API server was read from: certificates are renewed, CAs replaced, and a
//! process runs for months.
//!
//! ```text
//!   files --changed?--> read, checked --> another client, other CAs
//!                          \--> not usable: the former stay, and the log says why
//! ```

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use kube::{Client, Config, client::Body};
use rustls_pki_types::CertificateDer;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{AccessError, ClusterCas, Origin, authorities, place};
use crate::observability::chain;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The files that credentials and CAs come from.
pub struct CredentialFiles {
    origin: Origin,
    /// Of the files as they were when they were last of use.
    fingerprint: u64,
    /// Of those that were of no use and have been told of.
    told: Option<u64>,
    place: String,
    clients: watch::Sender<Client>,
    cas: watch::Sender<Vec<CertificateDer<'static>>>,
}

/// Whichever client there is when a request is made.
struct Newest(watch::Receiver<Client>);

impl CredentialFiles {
    pub(super) fn new(
        origin: Origin,
        fingerprint: u64,
        config: Config,
    ) -> Result<Self, AccessError> {
        Ok(Self {
            place: place(&config),
            cas: watch::Sender::new(authorities(&config)),
            clients: watch::Sender::new(origin.client(config)?),
            origin,
            fingerprint,
            told: None,
        })
    }

    pub(super) fn client(&self, namespace: &str) -> Client {
        Client::new(Newest(self.clients.subscribe()), namespace)
    }

    pub(super) fn cas(&self) -> ClusterCas {
        self.cas.subscribe()
    }

    /// Follows them until the shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = shutdown.cancelled() => return,
            }
            self.look().await;
        }
    }

    pub(super) async fn look(&mut self) {
        let fingerprint = self.origin.fingerprint();
        if fingerprint == self.fingerprint {
            return;
        }
        match self.read().await {
            Ok(()) => {
                tracing::info!("took the changed credentials for the API server");
                self.fingerprint = fingerprint;
            }
            // The reason may pass, with a file that is not looked at or with none: it is tried again.
            Err(error) if self.told != Some(fingerprint) => {
                self.told = Some(fingerprint);
                tracing::warn!(
                    error = chain(&error),
                    "cannot use the changed credentials for the API server: going on with the former, trying again",
                );
            }
            Err(_) => {}
        }
    }

    async fn read(&self) -> Result<(), AccessError> {
        let config = self.origin.read().await?;
        let now = place(&config);
        if now != self.place {
            let before = self.place.clone();
            return Err(AccessError::Elsewhere { before, now });
        }
        let cas = authorities(&config);
        let client = self.origin.client(config)?;
        self.clients.send_replace(client);
        self.cas.send_if_modified(|known| {
            let is_other = *known != cas;
            *known = cas;
            is_other
        });
        Ok(())
    }
}

impl Service<Request<Body>> for Newest {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = self.0.borrow().clone();
        Box::pin(async move { client.send(request).await })
    }
}

/// What tells whether one of the files has another content.
pub(super) fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}
