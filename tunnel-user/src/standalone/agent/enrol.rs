//! Getting the first certificate.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    AgentOptions,
    call::{Ask, CallError, ask_any},
    identity::StoredIdentity,
};
use crate::{
    certificates::{CertificateStore, Trouble},
    model::NodeName,
    pki::{CaPin, Credential, enrolment_client_config, request},
    standalone::{
        JoinToken, chain,
        proto::{Certificate, EnrolRequest},
    },
};

/// Waits between two rounds over servers that are out of reach: from the first, doubling, to the
/// last.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Enrols with the token and stores the identity. Servers that are out of reach are tried again
/// until `shutdown`; a refusal is final.
pub(super) async fn enrol(
    options: &AgentOptions,
    store: &CertificateStore,
    (token, pin): (&JoinToken, CaPin),
    trouble: Trouble<'_>,
    shutdown: &CancellationToken,
) -> anyhow::Result<StoredIdentity> {
    let key = store.pending_key()?;
    let ask = Ask::Enrol(EnrolRequest {
        token: token.reveal(),
        csr_der: request(&key)?,
        addresses: options.addresses.iter().map(ToString::to_string).collect(),
        node: options.node.to_string(),
    });
    let config = Arc::new(enrolment_client_config(pin)?);
    let answer = tokio::select! {
        () = shutdown.cancelled() => bail!("stopped before the agent was enrolled"),
        answer = ask_until_answered(options, &config, &ask, trouble) => answer.context("cannot enrol")?,
    };
    let ca = CertificateDer::from_pem_slice(answer.ca_pem.as_bytes())
        .context("the server's answer holds no CA certificate")?;
    ensure!(
        CaPin::of(&ca) == Some(pin),
        "the server's answer holds a CA other than that of --ca-hash"
    );
    let (credential, stored) = accept(&key, &answer, ca, &options.node)?;
    store.save(&credential)?;
    store.forget_pending_key()?;
    info!(node = %stored.identity.node, addresses = ?stored.identity.addresses, "enrolled");
    Ok(stored)
}

/// Checks that an answer is the certificate that was asked for.
fn accept(
    key: &KeyPair,
    answer: &Certificate,
    ca: CertificateDer<'static>,
    node: &NodeName,
) -> anyhow::Result<(Credential, StoredIdentity)> {
    let leaf = CertificateDer::from_pem_slice(answer.certificate_pem.as_bytes())
        .context("the server's answer holds no certificate")?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let credential = Credential::new(key, vec![leaf, ca])?;
    let stored = StoredIdentity::of(&credential)
        .context("the server's answer holds a certificate that cannot be used")?;
    let named = &stored.identity.node;
    ensure!(
        named == node,
        "the server's answer holds a certificate for node {named}, not for {node}"
    );
    Ok((credential, stored))
}

async fn ask_until_answered(
    options: &AgentOptions,
    config: &Arc<rustls::ClientConfig>,
    ask: &Ask,
    trouble: Trouble<'_>,
) -> Result<Certificate, CallError> {
    let mut wait = FIRST_WAIT;
    loop {
        match ask_any(&options.servers, config, options.mark, ask).await {
            Err(error) if !error.is_final() => {
                let error = chain(&error);
                warn!(error, "cannot enrol yet, trying again");
                trouble(format!("cannot enrol yet: {error}"));
            }
            answer => return answer,
        }
        tokio::time::sleep(wait.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
