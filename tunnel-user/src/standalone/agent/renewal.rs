//! A standalone server as an issuer: it renews the certificates of agents that it has enrolled.

use std::{slice, sync::Arc};

use anyhow::Context as _;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;
use tracing::info;

use super::{
    call::{Ask, ask_any},
    identity::{StoredIdentity, tls},
};
use crate::{
    certificates::{CertificateNames, Chain, Issuer, Judgement, Trouble, Wanted},
    model::{Mark, ServerAddr},
    pki::{Credential, request},
    standalone::proto::RenewRequest,
};

/// Gets new certificates with the one that is in use.
pub(crate) struct Renewal {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) mark: Mark,
    /// The CA of the enrolment, which is never replaced.
    pub(super) ca: CertificateDer<'static>,
}

impl Issuer for Renewal {
    /// Which addresses it names is the server's to say, and whether it is over also by its clock.
    fn judge(&self, credential: &Credential, _: OffsetDateTime) -> Judgement {
        let stored = StoredIdentity::of(credential).map_err(|unusable| unusable.to_string())?;
        if stored.ca != self.ca {
            return Err("it is of another CA than that of the enrolment".to_owned());
        }
        Ok(CertificateNames::of_node(&stored.identity.node, []))
    }

    async fn issue(&self, wanted: &Wanted<'_>, _: Trouble<'_>) -> anyhow::Result<Chain> {
        let in_use = wanted.in_use.context("there is no certificate to renew")?;
        let config = Arc::new(tls(in_use, slice::from_ref(&self.ca))?);
        let ask = Ask::Renew(RenewRequest {
            csr_der: request(wanted.key)?,
        });
        let answer = ask_any(&self.servers, &config, self.mark, &ask).await?;
        let leaf = CertificateDer::from_pem_slice(answer.certificate_pem.as_bytes())
            .context("the server's answer holds no certificate")?;
        info!("renewed the agent's certificate");
        Ok(vec![leaf, self.ca.clone()])
    }
}
