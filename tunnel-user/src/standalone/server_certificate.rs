//! The server's own certificate, which it renews itself.

use std::{slice, sync::Arc, time::Duration};

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{State, chain};
use crate::pki::{CLOCK_CHECK, Credential, RenewalSchedule, Validity, new_key, server_config};

/// How long a server certificate lives.
pub const SERVER_CERTIFICATE_LIFE: Duration = Duration::from_hours(365 * 24);

/// Key and certificate in one file, so that they always belong together.
const FILE: &str = "server.pem";

/// Keeps the server's certificate fresh and publishes the TLS configuration with it.
pub struct ServerCertificate {
    state: Arc<State>,
    life: Duration,
    schedule: RenewalSchedule,
    configs: watch::Sender<Arc<ServerConfig>>,
    validities: watch::Sender<Validity>,
}

impl ServerCertificate {
    /// Loads the certificate; issues one where there is none that can be used.
    pub fn new(state: Arc<State>, life: Duration, now: OffsetDateTime) -> anyhow::Result<Self> {
        let (config, validity) = match load(&state, now)? {
            Some(stored) => stored,
            None => issue(&state, life, now)?,
        };
        Ok(Self {
            state,
            life,
            schedule: RenewalSchedule::new(validity, rand::random()),
            configs: watch::Sender::new(Arc::new(config)),
            validities: watch::Sender::new(validity),
        })
    }

    /// Follows the configuration for the agent port.
    pub fn configs(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.configs.subscribe()
    }

    /// Follows the certificate's life.
    pub fn validities(&self) -> watch::Receiver<Validity> {
        self.validities.subscribe()
    }

    /// Renews the certificate whenever it is due.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let wait = self.schedule.wait(OffsetDateTime::now_utc());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait.min(CLOCK_CHECK)) => {}
            }
            let now = OffsetDateTime::now_utc();
            let validity = self.schedule.validity();
            if self.schedule.wait(now).is_zero() || !validity.has_begun(now) {
                self.renew(now);
            }
        }
    }

    fn renew(&mut self, now: OffsetDateTime) {
        match issue(&self.state, self.life, now) {
            Ok((config, validity)) => {
                self.schedule = RenewalSchedule::new(validity, rand::random());
                self.configs.send_replace(Arc::new(config));
                self.validities.send_replace(validity);
            }
            Err(cause) => {
                self.schedule.failed(now, rand::random());
                error!(
                    error = chain(cause.as_ref()),
                    expires = %self.schedule.validity().expires,
                    "cannot renew the server's certificate"
                );
            }
        }
    }
}

/// The stored certificate, unless a new one has to take its place.
fn load(state: &State, now: OffsetDateTime) -> anyhow::Result<Option<(ServerConfig, Validity)>> {
    let Some(content) = state.dir.read(FILE)? else {
        return Ok(None);
    };
    let usable = Credential::from_pem(&content)
        .map_err(|invalid| invalid.to_string())
        .and_then(|credential| usable(state, &credential, now));
    match usable {
        Ok(stored) => Ok(Some(stored)),
        Err(reason) => {
            warn!(file = %state.dir.file(FILE).display(), reason, "issuing a new server certificate");
            Ok(None)
        }
    }
}

fn usable(
    state: &State,
    credential: &Credential,
    now: OffsetDateTime,
) -> Result<(ServerConfig, Validity), String> {
    if credential.chain.get(1) != Some(state.ca().certificate()) {
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
    let config = server_config(credential, slice::from_ref(state.ca().certificate()))
        .map_err(|error| chain(&error))?;
    Ok((config, credential.validity))
}

fn issue(
    state: &State,
    life: Duration,
    now: OffsetDateTime,
) -> anyhow::Result<(ServerConfig, Validity)> {
    let key = new_key().context("cannot make a key for the server certificate")?;
    let leaf = state
        .ca()
        .issue_server(&key, Validity::starting(now, life))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // The CA goes along for agents that know it by its hash only.
    let credential = Credential::new(key, vec![leaf, state.ca().certificate().clone()])?;
    let config = server_config(&credential, slice::from_ref(state.ca().certificate()))?;
    state.dir.write(FILE, credential.to_pem().as_bytes())?;
    info!(expires = %credential.validity.expires, "issued a server certificate");
    Ok((config, credential.validity))
}

#[cfg(test)]
mod tests;
