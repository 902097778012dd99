//! A certificate of the cluster, kept usable: loaded, requested, renewed, stored.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::ensure;
use kube::Client;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    CertificateNames,
    issued::names_of_usable,
    kind::CertificateKind,
    request::{Request, RequestError, obtain},
    rotation::{Next, Rotation, Why},
    store::CertificateStore,
};
use crate::{
    kubernetes::ClusterCas,
    observability::chain,
    pki::{CLOCK_CHECK, Credential, StoreError},
    wait::{changed, wait_for},
};

type NamesOf<T> = dyn Fn(&T) -> Option<CertificateNames> + Send + Sync;

/// What the names are made of, on a channel, and how.
pub(super) struct DesiredNames<T> {
    pub(super) source: watch::Receiver<T>,
    /// `None` while they are not known.
    pub(super) names: Box<NamesOf<T>>,
}

/// Where certificates come from.
#[derive(Clone)]
pub(super) struct Signer {
    pub(super) client: Client,
    pub(super) cas: ClusterCas,
    pub(super) life: Option<Duration>,
}

/// Gets a certificate of one kind whenever one is needed.
pub(super) struct CertificateManager<T> {
    kind: &'static CertificateKind,
    signer: Signer,
    store: CertificateStore,
    desired: DesiredNames<T>,
    rotation: Rotation,
    in_use: Option<Arc<Credential>>,
}

impl<T: 'static> CertificateManager<T> {
    /// Opens the store; nothing is asked of the API server.
    pub(super) fn new(
        kind: &'static CertificateKind,
        signer: Signer,
        dir: &Path,
        desired: DesiredNames<T>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            kind,
            signer,
            store: CertificateStore::create(dir, kind)?,
            desired,
            rotation: Rotation::new(kind),
            in_use: None,
        })
    }

    /// The stored certificate, if it is one that can be used by a holder whose names are `fit`.
    pub(super) fn load(
        &mut self,
        fit: impl Fn(&CertificateNames) -> bool,
    ) -> Result<Option<Arc<Credential>>, StoreError> {
        let Some(stored) = self.store.load()? else {
            return Ok(None);
        };
        let usable = stored
            .map_err(|invalid| invalid.to_string())
            .and_then(|credential| {
                let names = self.names_of(&credential)?;
                if fit(&names) {
                    Ok((credential, names))
                } else {
                    Err(format!("it is for {names}"))
                }
            });
        match usable {
            Ok((credential, names)) => Ok(Some(self.hold(credential, names))),
            Err(reason) => {
                let file = self.store.file();
                warn!(file = %file.display(), reason, "cannot use the stored certificate, asking for another");
                Ok(None)
            }
        }
    }

    /// Waits until another certificate is needed and there; it is stored by then. May be dropped
    /// and called again at any time. `watch_logger` hears why it takes long.
    pub(super) async fn next(&mut self, watch_logger: &(dyn Fn(String) + Sync)) -> Arc<Credential> {
        loop {
            let names = (self.desired.names)(&self.desired.source.borrow_and_update());
            let now = OffsetDateTime::now_utc();
            match (self.rotation.next(names.as_ref(), now), &names) {
                (Next::Request(why), Some(names)) => {
                    if let Some(credential) = self.ask(names, why, watch_logger).await {
                        return credential;
                    }
                }
                (Next::Wait(wait), _) => {
                    let DesiredNames { source, names: of } = &mut self.desired;
                    tokio::select! {
                        () = sleep(wait.min(CLOCK_CHECK)) => {}
                        () = until_other(source, of, names.as_ref()) => self.rotation.names_changed(),
                    }
                }
                (Next::AwaitNames | Next::Request(_), _) => {
                    watch_logger(format!(
                        "the names for the {}'s certificate are not known yet",
                        self.kind.role
                    ));
                    changed(&mut self.desired.source).await;
                }
            }
        }
    }

    /// Where the certificate is kept.
    pub(super) fn file(&self) -> PathBuf {
        self.store.file()
    }

    /// Those to whom the certificate proves something do not take it any more: another one is
    /// needed.
    pub(super) fn refuse(&mut self) {
        let now = OffsetDateTime::now_utc();
        let after = self.rotation.refused(now, rand::random());
        warn!(
            role = self.kind.role,
            ?after,
            "the certificate is refused, though it has not expired: asking for another one"
        );
    }

    /// The certificate in use, once the cluster's CAs have changed. One that is of none of them any more is asked for anew.
    pub(super) fn under_other_cas(&mut self) -> Option<Arc<Credential>> {
        let in_use = self.in_use.clone()?;
        if let Err(reason) = self.names_of(&in_use) {
            let after = self
                .rotation
                .refused(OffsetDateTime::now_utc(), rand::random());
            let role = self.kind.role;
            warn!(
                role,
                reason,
                ?after,
                "the cluster's CAs have changed, asking for another certificate"
            );
        }
        Some(in_use)
    }

    /// Whether the certificate in use was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.rotation.is_refused()
    }

    async fn ask(
        &mut self,
        names: &CertificateNames,
        why: Why,
        watch_logger: &(dyn Fn(String) + Sync),
    ) -> Option<Arc<Credential>> {
        if let Some(credential) = self.take_newer(names) {
            return Some(credential);
        }
        info!(role = self.kind.role, ?why, %names, "a certificate is needed");
        let mut source = self.desired.source.clone();
        let asked = tokio::select! {
            asked = self.request(names, watch_logger) => asked,
            () = until_other(&mut source, &self.desired.names, Some(names)) => {
                self.rotation.names_changed();
                return None;
            }
        };
        match asked {
            Ok(credential) => Some(self.hold(credential, names.clone())),
            Err(error) => {
                let refused = error.downcast_ref().is_none_or(RequestError::is_refusal);
                let now = OffsetDateTime::now_utc();
                let again = self.rotation.failed(refused, now, rand::random());
                let error = chain(error.as_ref());
                let expires = self
                    .in_use
                    .as_ref()
                    .map(|held| held.validity.expires.to_string());
                warn!(
                    role = self.kind.role,
                    error,
                    ?again,
                    expires,
                    "no certificate"
                );
                watch_logger(format!("no certificate yet: {error}"));
                None
            }
        }
    }

    async fn request(
        &self,
        names: &CertificateNames,
        watch_logger: &(dyn Fn(String) + Sync),
    ) -> anyhow::Result<Credential> {
        let key = self.store.pending_key()?;
        let request = Request {
            kind: self.kind,
            names,
            key: &key,
            life: self.signer.life,
        };
        let issued = obtain(&self.signer.client, &request, watch_logger).await;
        if issued.as_ref().is_ok() || issued.as_ref().is_err_and(RequestError::is_refusal) {
            self.store.forget_pending_key()?;
        }
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let credential = Credential::new(key, issued?)?;
        let has = self.names_of(&credential).map_err(anyhow::Error::msg)?;
        ensure!(
            has == *names,
            "the signer issued a certificate for {has} instead of {names}"
        );
        if let Err(error) = self.store.save(&credential) {
            warn!(
                error = chain(&error),
                "cannot store the new certificate: it is lost at the next restart"
            );
        }
        Ok(credential)
    }

    /// What another process that shares the directory got meanwhile.
    fn take_newer(&mut self, names: &CertificateNames) -> Option<Arc<Credential>> {
        let stored = self.store.load().ok()??.ok()?;
        let newer = |held: &Arc<Credential>| stored.validity.issued > held.validity.issued;
        if self.names_of(&stored).ok()? == *names && self.in_use.as_ref().is_some_and(newer) {
            info!(
                role = self.kind.role,
                "taking the certificate that another process got"
            );
            return Some(self.hold(stored, names.clone()));
        }
        None
    }

    fn names_of(&self, credential: &Credential) -> Result<CertificateNames, String> {
        let now = OffsetDateTime::now_utc();
        names_of_usable(credential, self.kind, &self.signer.cas.borrow(), now).map_err(|unusable| {
            format!(
                "cannot use the {}'s certificate: {unusable}",
                self.kind.role
            )
        })
    }

    fn hold(&mut self, credential: Credential, names: CertificateNames) -> Arc<Credential> {
        let expires = credential.validity.expires;
        info!(role = self.kind.role, %names, %expires, "there is a certificate");
        let now = OffsetDateTime::now_utc();
        self.rotation
            .hold(names, credential.validity, now, rand::random());
        let credential = Arc::new(credential);
        self.in_use = Some(Arc::clone(&credential));
        credential
    }
}

/// Resolves when other names than these are wanted.
async fn until_other<T>(
    source: &mut watch::Receiver<T>,
    names: &NamesOf<T>,
    now: Option<&CertificateNames>,
) {
    let is_other = |content: &T| names(content).is_some_and(|desired| Some(&desired) != now);
    wait_for(source, is_other).await;
}
