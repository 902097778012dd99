//! The agent's credential: got once by enrolment, renewed for as long as the agent runs.

use std::{net::IpAddr, path::PathBuf, slice, sync::Arc};

use anyhow::Context as _;
use rustls::ClientConfig;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    call::{Ask, ask_any},
    enrol::{accept, enrol},
    plan::{Asked, NoIdentity, Plan, plan},
    store::{AgentStore, StoredIdentity},
};
use crate::{
    model::{AgentIdentity, Mark, NodeName, ServerAddr},
    pki::{
        CLOCK_CHECK, CaPin, RenewalSchedule, ServerProof, Validity, client_config, new_key, request,
    },
    standalone::{JoinToken, chain, proto::RenewRequest},
};

/// What an agent needs to know in order to have an identity.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Where the agent keeps its credential.
    pub state_dir: PathBuf,
    /// The node.
    pub node: NodeName,
    /// The servers, any of which may enrol and renew.
    pub servers: Vec<ServerAddr>,
    /// The right to enrol, where it is needed; or why the one that was named cannot be read.
    pub token: Option<Result<JoinToken, String>>,
    /// The CA by which the right server is known at enrolment.
    pub pin: Option<CaPin>,
    /// The machine's own addresses, proposed where the token names none.
    pub addresses: Vec<IpAddr>,
    /// Put on the sockets to servers.
    pub mark: Mark,
}

/// The credential, kept fresh by [`run`](Self::run).
pub struct AgentCredentials {
    store: AgentStore,
    servers: Vec<ServerAddr>,
    mark: Mark,
    stored: StoredIdentity,
    schedule: RenewalSchedule,
    configs: watch::Sender<Arc<ClientConfig>>,
    validities: watch::Sender<Validity>,
}

impl AgentCredentials {
    /// Loads the stored credential, or enrols with the token: for as long as no server can be
    /// reached, and until `shutdown`. `trouble` hears why it takes long.
    pub async fn establish(
        options: &AgentOptions,
        trouble: &(dyn Fn(String) + Sync),
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let store = AgentStore::create(&options.state_dir)?;
        let asked = Asked {
            node: &options.node,
            token: options.token.as_ref().map(|token| match token {
                Ok(token) => Ok(token),
                Err(reason) => Err(reason.as_str()),
            }),
            pin: options.pin,
        };
        let decision = plan_in_time(&store, asked, trouble, shutdown)
            .await
            .with_context(|| format!("no identity in {}", store.path().display()))?;
        let stored = match decision {
            Plan::UseStored(stored) => {
                match &options.token {
                    Some(Err(reason)) => {
                        info!(reason, "already enrolled, going on without a token");
                    }
                    Some(Ok(_)) => info!("already enrolled, the token is not needed any more"),
                    None => {}
                }
                *stored
            }
            Plan::Enrol {
                token,
                pin,
                fallback,
            } => match (
                enrol(options, &store, (&token, pin), trouble, shutdown).await,
                fallback,
            ) {
                (Ok(stored), _) => stored,
                (Err(error), None) => return Err(error),
                (Err(error), Some(fallback)) => {
                    warn!(
                        error = chain(error.as_ref()),
                        "cannot enrol with the new token, keeping the stored identity"
                    );
                    *fallback
                }
            },
        };
        Self::new(store, options, stored)
    }

    fn new(
        store: AgentStore,
        options: &AgentOptions,
        stored: StoredIdentity,
    ) -> anyhow::Result<Self> {
        let config = client_config(
            &stored.credential,
            slice::from_ref(&stored.ca),
            ServerProof::OwnCa,
        )?;
        let validity = stored.credential.validity;
        info!(node = %stored.identity.node, expires = %validity.expires, "the agent has its identity");
        Ok(Self {
            store,
            servers: options.servers.clone(),
            mark: options.mark,
            schedule: RenewalSchedule::new(validity, rand::random()),
            stored,
            configs: watch::Sender::new(Arc::new(config)),
            validities: watch::Sender::new(validity),
        })
    }

    /// What the credential proves: the names to register.
    pub fn identity(&self) -> &AgentIdentity {
        &self.stored.identity
    }

    /// Follows the configuration for sessions.
    pub fn configs(&self) -> watch::Receiver<Arc<ClientConfig>> {
        self.configs.subscribe()
    }

    /// Follows the certificate's life.
    pub fn validities(&self) -> watch::Receiver<Validity> {
        self.validities.subscribe()
    }

    /// The life of the CA's certificate, which is never renewed.
    pub fn ca_validity(&self) -> Option<Validity> {
        Validity::of(&self.stored.ca)
    }

    /// Renews the certificate whenever it is due.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let wait = self.schedule.wait(OffsetDateTime::now_utc());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait.min(CLOCK_CHECK)) => {}
            }
            if !self.schedule.wait(OffsetDateTime::now_utc()).is_zero() {
                continue;
            }
            let renewed = tokio::select! {
                () = shutdown.cancelled() => return,
                renewed = self.renew() => renewed,
            };
            if let Err(error) = renewed {
                self.schedule
                    .failed(OffsetDateTime::now_utc(), rand::random());
                let expires = self.schedule.validity().expires;
                warn!(error = chain(error.as_ref()), %expires, "cannot renew the agent's certificate");
            }
        }
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        let key = new_key()?;
        let ask = Ask::Renew(RenewRequest {
            csr_der: request(&key)?,
        });
        let config = self.configs.borrow().clone();
        let answer = ask_any(&self.servers, &config, self.mark, &ask).await?;
        let stored = accept(
            &key,
            &answer,
            self.stored.ca.clone(),
            &self.stored.identity.node,
        )?;
        let config = client_config(
            &stored.credential,
            slice::from_ref(&stored.ca),
            ServerProof::OwnCa,
        )?;
        self.store.save(&stored)?;
        let validity = stored.credential.validity;
        info!(expires = %validity.expires, "renewed the agent's certificate");
        self.schedule = RenewalSchedule::new(validity, rand::random());
        self.stored = stored;
        self.configs.send_replace(Arc::new(config));
        self.validities.send_replace(validity);
        Ok(())
    }
}

/// Decides what to do, once the clock allows it: one that is ahead makes every certificate look old, and a machine that
/// keeps no time while it is off may set it after this program has started.
async fn plan_in_time(
    store: &AgentStore,
    asked: Asked<'_>,
    trouble: &(dyn Fn(String) + Sync),
    shutdown: &CancellationToken,
) -> anyhow::Result<Plan> {
    let mut told = false;
    loop {
        let late = match plan(store.load()?, asked, OffsetDateTime::now_utc()) {
            Err(late @ NoIdentity::Late { .. }) => late,
            decided => return Ok(decided?),
        };
        if !told {
            warn!(reason = %late, "waiting for the clock");
            told = true;
        }
        trouble(late.to_string());
        tokio::select! {
            () = tokio::time::sleep(CLOCK_CHECK) => {}
            () = shutdown.cancelled() => return Err(late.into()),
        }
    }
}
