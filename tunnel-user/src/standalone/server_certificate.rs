//! The server's own certificate, which it issues itself.

use std::{slice, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::sync::watch;

use super::{State, chain};
use crate::{
    certificates::{
        self, CertificateManager, CertificateNames, CertificateStore, Chain, Issuer, Judgement,
        Signer, Trouble, Wanted,
    },
    pki::{Credential, SERVER_NAME, Validity, server_config, server_config_without_certificate},
};

/// How long a server certificate lives.
pub const SERVER_CERTIFICATE_LIFE: Duration = Duration::from_hours(365 * 24);

/// The certificate of a server that has its own CA.
pub(crate) type ServerCertificate = certificates::ServerCertificate<OwnCa>;

/// Issues the server's certificate.
pub(crate) struct OwnCa {
    state: Arc<State>,
    life: Duration,
}

impl ServerCertificate {
    /// Loads the certificate; issues one where there is none that can be used.
    pub(crate) async fn new(state: Arc<State>, life: Duration) -> anyhow::Result<Self> {
        let store = CertificateStore::new(state.dir.clone(), "server");
        let wanted = watch::channel(Some(names())).1;
        let cas = watch::channel(vec![state.ca().certificate().clone()]).1;
        let issuer = (OwnCa { state, life }, Signer::Own);
        let manager = CertificateManager::new(issuer, store, wanted, cas);
        let without = Arc::new(server_config_without_certificate()?);
        let certificate = Self::load(manager, without, |credential, cas| {
            server_config(credential, cas).map(Arc::new)
        })?;
        certificate.or_issued().await
    }
}

impl Issuer for OwnCa {
    fn judge(&self, credential: &Credential, now: OffsetDateTime) -> Judgement {
        let ca = self.state.ca().certificate();
        if credential.chain.get(1) != Some(ca) {
            return Err("it was not issued by the CA that is in use".to_owned());
        }
        let Validity { issued, expires } = credential.validity;
        if credential.validity.has_ended(now) {
            return Err(format!("it expired at {expires}"));
        }
        if !credential.validity.has_begun(now) {
            return Err(format!(
                "it was issued at {issued}, by a clock that was ahead"
            ));
        }
        server_config(credential, slice::from_ref(ca)).map_err(|error| chain(&error))?;
        Ok(names())
    }

    async fn issue(&self, wanted: &Wanted<'_>, _: Trouble<'_>) -> anyhow::Result<Chain> {
        let validity = Validity::starting(OffsetDateTime::now_utc(), self.life);
        let ca = self.state.ca();
        let leaf = ca.issue_server(wanted.key, validity)?;
        // The CA goes along for agents that know it by its hash only.
        Ok(vec![leaf, ca.certificate().clone()])
    }
}

/// Every server has this one.
fn names() -> CertificateNames {
    CertificateNames {
        dns: [SERVER_NAME.to_owned()].into(),
        ..CertificateNames::default()
    }
}

#[cfg(test)]
mod tests;
