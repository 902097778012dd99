//! The agent's credential: got once by enrolment, renewed for as long as the agent runs.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    enrol::enrol,
    identity::{StoredIdentity, tls},
    plan::{Asked, NoIdentity, Plan, plan},
    renewal::Renewal,
};
use crate::{
    certificates::{
        self, CLOCK_CHECK, CertificateManager, CertificateNames, CertificateStore, Signer, Trouble,
    },
    model::{Mark, NodeName, ServerAddr},
    pki::{AgentProof, CaPin, PrivateDir, StoreError},
    standalone::{JoinToken, chain},
};

/// What an agent needs to know in order to have an identity.
#[derive(Clone, Debug)]
pub(crate) struct AgentOptions {
    /// Where the agent keeps its credential.
    pub(crate) state_dir: PathBuf,
    /// The node.
    pub(crate) node: NodeName,
    /// The servers, any of which may enrol and renew.
    pub(crate) servers: Vec<ServerAddr>,
    /// The right to enrol, where it is needed; or why the one that was named cannot be read.
    pub(crate) token: Option<Result<JoinToken, String>>,
    /// The CA by which the right server is known at enrolment.
    pub(crate) pin: Option<CaPin>,
    /// The machine's own addresses, proposed where the token names none.
    pub(crate) addresses: Vec<IpAddr>,
    /// Put on the sockets to servers.
    pub(crate) mark: Mark,
}

/// An agent's credential, got from a standalone server.
pub(crate) type AgentCredentials = certificates::AgentCredentials<Renewal>;

/// The key of an enrolment that was begun; a lost answer is asked for again with it.
const JOINING_KEY: &str = "joining.key";

impl AgentCredentials {
    /// Loads the stored credential, or enrols with the token: for as long as no server can be
    /// reached, and until `shutdown`. `trouble` hears why it takes long.
    pub(crate) async fn establish(
        options: &AgentOptions,
        trouble: Trouble<'_>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let store = store(&options.state_dir)?;
        let stored = identity(options, &store, trouble, shutdown).await?;
        let wanted = watch::channel(Some(CertificateNames::of_node(&options.node, []))).1;
        let cas = watch::channel(vec![stored.ca.clone()]).1;
        let issuer = Renewal {
            servers: options.servers.clone(),
            mark: options.mark,
            ca: stored.ca,
        };
        let manager = CertificateManager::new((issuer, Signer::Server), store, wanted, cas);
        Self::load_or_obtain(manager, (AgentProof::Enrolment, tls), trouble, shutdown).await
    }
}

pub(super) fn store(state_dir: &Path) -> Result<CertificateStore, StoreError> {
    let dir = PrivateDir::create(state_dir)?;
    Ok(CertificateStore::new(dir, "agent").with_pending_key(JOINING_KEY))
}

/// The stored identity, or that of an enrolment; either is in the store.
async fn identity(
    options: &AgentOptions,
    store: &CertificateStore,
    trouble: Trouble<'_>,
    shutdown: &CancellationToken,
) -> anyhow::Result<StoredIdentity> {
    let token = options.token.as_ref();
    let asked = Asked {
        node: &options.node,
        token: token.map(|token| token.as_ref().map_err(String::as_str)),
        pin: options.pin,
    };
    let decision = plan_in_time(store, asked, trouble, shutdown)
        .await
        .with_context(|| format!("no identity in {}", options.state_dir.display()))?;
    let (token, pin, fallback) = match decision {
        Plan::UseStored(stored) => {
            match &options.token {
                Some(Err(reason)) => info!(reason, "already enrolled, going on without a token"),
                Some(Ok(_)) => info!("already enrolled, the token is not needed any more"),
                None => {}
            }
            return Ok(stored);
        }
        Plan::Enrol {
            token,
            pin,
            fallback,
        } => (token, pin, fallback),
    };
    let enrolled = enrol(options, store, (&token, pin), trouble, shutdown).await;
    match (enrolled, fallback) {
        (Err(error), Some(fallback)) => {
            warn!(
                error = chain(error.as_ref()),
                "cannot enrol with the new token, keeping the stored identity"
            );
            Ok(fallback)
        }
        (enrolled, _) => enrolled,
    }
}

/// Decides what to do, once the clock allows it: one that is ahead makes every certificate look old, and a machine that
/// keeps no time while it is off may set it after this program has started.
async fn plan_in_time(
    store: &CertificateStore,
    asked: Asked<'_>,
    trouble: Trouble<'_>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Plan> {
    let mut told = false;
    loop {
        let stored = store.load()?.map(|stored| StoredIdentity::of(&stored?));
        let late = match plan(stored, asked, OffsetDateTime::now_utc()) {
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
