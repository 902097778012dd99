//! A certificate, kept usable: loaded, requested, renewed, stored, published.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    CertificateNames, CertificateStore, Chain, Issuer, Judgement, Signer, Trouble, Wanted,
    rotation::{CLOCK_CHECK, Next, Rotation, Why},
};
use crate::{
    observability::chain,
    pki::{Credential, StoreError, new_key},
    wait::{changed, wait_for},
};

/// The names that a certificate should have; `None` while they are not known.
pub(crate) type WantedNames = watch::Receiver<Option<CertificateNames>>;
type Cas = watch::Receiver<Vec<CertificateDer<'static>>>;

/// What becomes of a certificate, and who may not take it.
pub(super) trait Published: Sync {
    fn publish(&self, new: &Credential, cas: &[CertificateDer<'static>]) -> anyhow::Result<()>;

    /// Resolves once those to whom the published one proves something do not take it any more.
    fn refused(&self) -> impl Future<Output = ()> + Send;
}

/// Gets a certificate whenever one is needed.
pub(crate) struct CertificateManager<I> {
    issuer: I,
    signer: Signer,
    pub(super) store: CertificateStore,
    wanted: WantedNames,
    /// Those of whom the certificates of the other ends are.
    pub(super) cas: Cas,
    rotation: Rotation,
    in_use: Option<Arc<Credential>>,
}

impl<I: Issuer> CertificateManager<I> {
    pub(crate) fn new(
        (issuer, signer): (I, Signer),
        store: CertificateStore,
        wanted: WantedNames,
        cas: Cas,
    ) -> Self {
        Self {
            issuer,
            signer,
            store,
            wanted,
            cas,
            rotation: Rotation::new(signer),
            in_use: None,
        }
    }

    /// The stored certificate, if it is one that can be used. Nobody is asked.
    pub(super) fn load(&mut self) -> Result<Option<Arc<Credential>>, StoreError> {
        let Some(stored) = self.store.load()? else {
            return Ok(None);
        };
        let usable = stored
            .map_err(|invalid| invalid.to_string())
            .and_then(|credential| Ok((self.judge(&credential)?, credential)));
        match usable {
            Ok((names, credential)) => {
                self.rotation
                    .load(names.clone(), credential.validity, rand::random());
                Ok(Some(self.take(&names, credential)))
            }
            Err(reason) => {
                let file = self.store.file();
                warn!(file = %file.display(), reason, "cannot use the stored certificate, asking for another");
                Ok(None)
            }
        }
    }

    /// Asks once.
    pub(super) async fn issue(&mut self) -> anyhow::Result<Arc<Credential>> {
        let names = known(self.wanted.borrow().as_ref()).cloned();
        let names = names.context("the certificate's names are not known")?;
        let credential = self.request(&names, &|_| {}).await?;
        Ok(self.hold(&names, credential))
    }

    /// Waits until another certificate is needed and there; it is stored by then. May be dropped
    /// and called again at any time. `trouble` hears why it takes long.
    pub(super) async fn next(&mut self, trouble: Trouble<'_>) -> Arc<Credential> {
        loop {
            let names = known(self.wanted.borrow_and_update().as_ref()).cloned();
            let now = OffsetDateTime::now_utc();
            match (self.rotation.next(names.as_ref(), now), &names) {
                (Next::Request(why), Some(names)) => {
                    if let Some(credential) = self.ask(names, why, trouble).await {
                        return credential;
                    }
                }
                (Next::Wait(wait), _) => tokio::select! {
                    () = sleep(wait.min(CLOCK_CHECK)) => {}
                    () = until_other(&mut self.wanted, names.as_ref()) => self.rotation.names_changed(),
                },
                (Next::AwaitNames | Next::Request(_), _) => {
                    let role = self.store.role;
                    trouble(format!(
                        "the names for the {role}'s certificate are not known yet"
                    ));
                    changed(&mut self.wanted).await;
                }
            }
        }
    }

    /// Publishes a certificate whenever there is another one, and the one in use once it is to be
    /// seen with other CAs.
    pub(super) async fn run(
        mut self,
        published: impl Published,
        trouble: Trouble<'_>,
        shutdown: CancellationToken,
    ) {
        let mut cas = self.cas.clone();
        loop {
            let credential = tokio::select! {
                () = shutdown.cancelled() => return,
                () = published.refused(), if !self.rotation.is_refused() => {
                    let (role, after) = (self.store.role, self.refuse());
                    warn!(role, ?after, "the certificate is refused, though it has not expired: asking for another one");
                    continue;
                }
                () = changed(&mut cas) => match self.under_other_cas() {
                    Some(in_use) => in_use,
                    None => continue,
                },
                credential = self.next(trouble) => credential,
            };
            self.publish(&published, &credential);
        }
    }

    pub(super) fn publish(&self, published: &impl Published, credential: &Credential) {
        let outcome = published.publish(credential, &self.cas.borrow());
        if let Err(error) = outcome {
            let (role, file) = (self.store.role, self.store.file());
            error!(role, file = %file.display(), error = chain(error.as_ref()), "cannot use the certificate");
        }
    }

    /// Another one is needed than the one in use. Returns the wait until it is asked for.
    fn refuse(&mut self) -> Duration {
        self.rotation
            .refused(OffsetDateTime::now_utc(), rand::random())
    }

    /// The certificate in use, once the CAs have changed. One that is of none of them any more is asked for anew.
    fn under_other_cas(&mut self) -> Option<Arc<Credential>> {
        let in_use = self.in_use.clone()?;
        if let Err(reason) = self.judge(&in_use) {
            let (role, after) = (self.store.role, self.refuse());
            warn!(
                role,
                reason,
                ?after,
                "the cluster's CAs have changed, asking for another certificate"
            );
        }
        Some(in_use)
    }

    async fn ask(
        &mut self,
        names: &CertificateNames,
        why: Why,
        trouble: Trouble<'_>,
    ) -> Option<Arc<Credential>> {
        let role = self.store.role;
        if let Some(credential) = self.take_newer(names) {
            return Some(credential);
        }
        info!(role, ?why, %names, "a certificate is needed");
        let mut wanted = self.wanted.clone();
        let asked = tokio::select! {
            asked = self.request(names, trouble) => asked,
            () = until_other(&mut wanted, Some(names)) => {
                self.rotation.names_changed();
                return None;
            }
        };
        match asked {
            Ok(credential) => Some(self.hold(names, credential)),
            Err(error) => {
                let (refused, now) = (self.issuer.is_refusal(&error), OffsetDateTime::now_utc());
                let again = self.rotation.failed(refused, now, rand::random());
                let error = chain(error.as_ref());
                let in_use = self.in_use.as_ref();
                let expires = in_use.map(|held| held.validity.expires.to_string());
                warn!(role, error, ?again, expires, "no certificate");
                trouble(format!("no certificate yet: {error}"));
                None
            }
        }
    }

    async fn request(
        &self,
        names: &CertificateNames,
        trouble: Trouble<'_>,
    ) -> anyhow::Result<Credential> {
        let keeps_key = self.signer.is_cluster();
        let key = if keeps_key {
            self.store.pending_key()?
        } else {
            new_key()?
        };
        let wanted = Wanted {
            names,
            key: &key,
            in_use: self.in_use.as_deref(),
        };
        let issued = self.issuer.issue(&wanted, trouble).await;
        let refusal = |error| self.issuer.is_refusal(error);
        if keeps_key && issued.as_ref().err().is_none_or(refusal) {
            self.store.forget_pending_key()?;
        }
        self.accept(&key, issued?, names)
    }

    /// Checks that an answer is what was asked for, and stores it.
    fn accept(
        &self,
        key: &KeyPair,
        issued: Chain,
        names: &CertificateNames,
    ) -> anyhow::Result<Credential> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let credential = Credential::new(key, issued)?;
        let has = self.judge(&credential).map_err(|reason| {
            anyhow!("the certificate that was issued cannot be used: {reason}")
        })?;
        ensure!(
            has == *names,
            "the signer issued a certificate for {has} instead of {names}"
        );
        match self.store.save(&credential) {
            Err(error) if self.signer.is_cluster() => warn!(
                error = chain(&error),
                "cannot store the new certificate: it is lost at the next restart"
            ),
            stored => stored?,
        }
        Ok(credential)
    }

    /// What another process that shares the directory got meanwhile.
    fn take_newer(&mut self, names: &CertificateNames) -> Option<Arc<Credential>> {
        let stored = self.store.load().ok()??.ok()?;
        let newer = |held: &Arc<Credential>| stored.validity.issued > held.validity.issued;
        if self.judge(&stored).ok()? == *names && self.in_use.as_ref().is_some_and(newer) {
            let role = self.store.role;
            info!(role, "taking the certificate that another process got");
            return Some(self.hold(names, stored));
        }
        None
    }

    fn judge(&self, credential: &Credential) -> Judgement {
        self.issuer.judge(credential, OffsetDateTime::now_utc())
    }

    /// A new certificate is in use from now on.
    fn hold(&mut self, names: &CertificateNames, credential: Credential) -> Arc<Credential> {
        let now = OffsetDateTime::now_utc();
        self.rotation
            .hold(names.clone(), credential.validity, now, rand::random());
        self.take(names, credential)
    }

    fn take(&mut self, names: &CertificateNames, credential: Credential) -> Arc<Credential> {
        let expires = credential.validity.expires;
        info!(role = self.store.role, %names, %expires, "there is a certificate");
        let credential = Arc::new(credential);
        self.in_use = Some(Arc::clone(&credential));
        credential
    }
}

fn known(names: Option<&CertificateNames>) -> Option<&CertificateNames> {
    names.filter(|names| !names.is_empty())
}

/// Resolves when other names than these are wanted.
async fn until_other(wanted: &mut WantedNames, now: Option<&CertificateNames>) {
    let is_other = |names: &CertificateNames| Some(names) != now;
    wait_for(wanted, |names| known(names.as_ref()).is_some_and(is_other)).await;
}

#[cfg(test)]
mod tests;
