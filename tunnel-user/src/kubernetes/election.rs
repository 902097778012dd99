//! Which of the servers writes to the cluster: the one that holds a Lease.
//!
//! The leader does what must be done once: it approves certificates and tells of conflicts. Nothing
//! that carries connections depends on it, and losing the Lease stops nothing else.

mod candidate;

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::candidate::{Candidate, PAUSE};
use super::{
    ObjectName,
    api_error::{describe, is_status},
};
use crate::wait::sleep_until_opt;

/// The longest that one answer of the API server may take: a leader has time for a second attempt.
const ANSWER_TIME: Duration = Duration::from_secs(4);

/// Stands for election until the shutdown.
pub struct Election {
    api: Api<Lease>,
    lease: ObjectName,
    candidate: Candidate,
    leading: watch::Sender<bool>,
    leader: watch::Sender<Option<String>>,
    /// Whether the API server failed us last time, so that it is said once.
    troubled: bool,
}

/// Why a turn came to nothing.
enum Failure {
    /// Somebody else wrote first.
    Conflict,
    Api(String),
}

impl Election {
    /// Stands for the holder of this Lease, as the server of this name; nothing is asked of the API
    /// server yet.
    pub fn new(client: Client, lease: ObjectName, server: &str) -> Self {
        // Of two processes on one machine one leads: they have different names.
        let identity = format!("{server}_{:08x}", rand::random::<u32>());
        Self {
            api: Api::namespaced(client, &lease.namespace),
            lease,
            candidate: Candidate::new(identity),
            leading: watch::Sender::new(false),
            leader: watch::Sender::new(None),
            troubled: false,
        }
    }

    /// Follows whether this server leads.
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Follows who leads, as far as that is known.
    pub fn leader(&self) -> watch::Receiver<Option<String>> {
        self.leader.subscribe()
    }

    /// Leads whenever it can, and gives the Lease back at the end.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let began = Instant::now();
            let lead_ends = self.candidate.leads_until(began);
            let turn = tokio::select! {
                turn = take_turn(&self.api, &self.lease, &mut self.candidate) => turn,
                () = sleep_until_opt(lead_ends) => Err(Failure::Api("it does not answer in time".to_owned())),
                () = shutdown.cancelled() => break,
            };
            self.tell(turn.err());
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = sleep_until_opt(self.candidate.leads_until(Instant::now())) => self.publish(),
                () = shutdown.cancelled() => break,
            }
        }
        self.release().await;
    }

    fn tell(&mut self, failure: Option<Failure>) {
        let lease = &self.lease;
        match failure {
            Some(Failure::Api(error)) if !self.troubled => {
                warn!(%lease, error, "cannot stand for election: whoever leads goes on until its time is over");
                self.troubled = true;
            }
            Some(Failure::Api(error)) => debug!(%lease, error, "still cannot stand for election"),
            Some(Failure::Conflict) => debug!(%lease, "somebody else wrote the Lease first"),
            None => self.troubled = false,
        }
        self.publish();
    }

    fn publish(&self) {
        let now = Instant::now();
        let leads = self.candidate.leads_until(now).is_some();
        self.leading.send_if_modified(|led| {
            let changed = *led != leads;
            if changed {
                info!(lease = %self.lease, leads, "leadership changed");
            }
            *led = leads;
            changed
        });
        let leader = self.candidate.leader(now);
        self.leader.send_if_modified(|known| {
            let changed = known.as_deref() != leader;
            if changed {
                *known = leader.map(str::to_owned);
            }
            changed
        });
    }

    /// The next leader need not wait.
    async fn release(&mut self) {
        self.leading.send_replace(false);
        let released = async {
            let lease = self.api.get(&self.lease.name).await?;
            if let Some(spec) = self.candidate.release(Instant::now()) {
                write(&self.api, &self.lease, Some(lease), spec).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match timeout(ANSWER_TIME, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(error = describe(&error), "cannot give the Lease back"),
            Err(_elapsed) => debug!("cannot give the Lease back: the API server does not answer"),
        }
    }
}

/// Looks at the Lease, and takes or renews it where that is due.
async fn take_turn(
    api: &Api<Lease>,
    name: &ObjectName,
    candidate: &mut Candidate,
) -> Result<(), Failure> {
    let found = match timeout(ANSWER_TIME, api.get_opt(&name.name)).await {
        Ok(found) => found.map_err(|error| Failure::Api(describe(&error)))?,
        Err(_elapsed) => return Err(Failure::Api("it does not answer".to_owned())),
    };
    let began = Instant::now();
    let Some(spec) = candidate.look(found.as_ref(), began, Timestamp::now()) else {
        return Ok(());
    };
    match timeout(ANSWER_TIME, write(api, name, found, spec)).await {
        Ok(Ok(written)) => {
            candidate.wrote(written.spec.unwrap_or_default(), began);
            Ok(())
        }
        Ok(Err(error)) if is_status(&error, 409) => Err(Failure::Conflict),
        Ok(Err(error)) => Err(Failure::Api(describe(&error))),
        Err(_elapsed) => Err(Failure::Api("it does not answer".to_owned())),
    }
}

/// Fails with a conflict where the Lease is not the one that was found any more.
async fn write(
    api: &Api<Lease>,
    name: &ObjectName,
    found: Option<Lease>,
    spec: LeaseSpec,
) -> kube::Result<Lease> {
    let params = PostParams::default();
    if let Some(lease) = found {
        let spec = Some(spec);
        return api
            .replace(&name.name, &params, &Lease { spec, ..lease })
            .await;
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.name.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    };
    api.create(&params, &lease).await
}
