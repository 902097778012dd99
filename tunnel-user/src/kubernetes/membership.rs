//! Which servers there are: each keeps a Lease alive and follows those of the others.
//!
//! ```text
//!  this server --renews--> Lease culvert-server-<machine>, holder = server id, annotation = agent port
//!  all those Leases --> MemberSet --count----> agents, which look for who is missing
//!                                \--servers--> Relay, which asks them for sessions that are not here
//! ```
//! A Lease belongs to a machine, not to a process: a successor takes its predecessor's over, and
//! the number stays the same. Whoever serves agents renews; without the API server the last count
//! stays.

mod member_set;

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::watcher::Event,
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use self::member_set::{MemberServer, MemberSet, Uncertainty};
use super::{
    api_error::describe,
    watch::{Scope, WatchEvent, WatchLogger, Watcher, follow},
};
use crate::{
    model::{NodeName, ServerAddr},
    tunnel::RelayServer,
    wait::sleep_until_opt,
};

/// Between two renewals.
const RENEW: Duration = Duration::from_secs(5);
/// A server is gone whose Lease was not renewed for this long.
const LIFE: Duration = Duration::from_secs(15);
/// An API server that takes longer is away.
const PATIENCE: Duration = Duration::from_secs(4);
/// The longest that a server stays for the sake of its Lease, which expires anyway.
const FAREWELL_TIME: Duration = Duration::from_secs(2);
/// What the servers' Leases have in common, and nothing else in the namespace has.
const LABEL: (&str, &str) = ("k8s-app", "culvert-server");
/// Where other servers reach this one's agent port, in its Lease.
const ADDRESS: &str = "culvert.dev/agent-port";
/// Owns the fields that this writes.
const MANAGER: &str = "culvert-server";

/// What being counted needs.
pub struct MembershipOptions {
    /// The API server; it need not be there.
    pub client: kube::Client,
    /// Where the Leases are.
    pub namespace: String,
    /// The machine that this server runs on.
    pub machine: NodeName,
    /// Whether it is counted. One that takes no agents is not, and never in charge: it only follows the others.
    pub counts: bool,
    /// The server's id, as agents are told it.
    pub server_id: String,
    /// Where other servers reach its agent port; `None` if they cannot.
    pub address: Option<ServerAddr>,
}

/// What is known of the other servers.
pub struct Members {
    /// How many servers there are, this one included; sent again when one was replaced by another.
    pub count: watch::Receiver<u32>,
    /// The others, those that can be reached.
    pub others: watch::Receiver<Vec<RelayServer>>,
}

/// Keeps this server counted, and counts.
///
/// Needs `list` and `watch` of `leases`; to be counted `create`, `patch`, `get` and `delete`, too.
pub struct Membership {
    leases: Api<Lease>,
    name: String,
    counts: bool,
    server_id: String,
    address: Option<ServerAddr>,
    member_set: MemberSet,
    /// `this --number of servers--> agents`
    count_tx: watch::Sender<u32>,
    /// `this --other servers--> Relay`
    others_tx: watch::Sender<Vec<RelayServer>>,
}

impl Membership {
    /// Asks nothing of the API server. Until it has told of others, this server is the only one.
    pub fn new(options: MembershipOptions) -> (Self, Members) {
        let MembershipOptions {
            client,
            namespace,
            machine,
            counts,
            server_id,
            address,
        } = options;
        let role = if counts { "server" } else { "relay" };
        let name = format!("culvert-{role}-{machine}");
        let (count_tx, count) = watch::channel(1);
        let (others_tx, others) = watch::channel(Vec::new());
        let this = Self {
            leases: Api::namespaced(client, &namespace),
            member_set: MemberSet::new(&name, LIFE),
            name,
            counts,
            server_id,
            address,
            count_tx,
            others_tx,
        };
        (this, Members { count, others })
    }

    /// Counts until `shutdown`, and renews while this server is `in_charge`. At the end the Lease is
    /// deleted, unless a successor has it.
    pub async fn run(mut self, mut in_charge: watch::Receiver<bool>, shutdown: CancellationToken) {
        let labelled = Scope::Labelled(format!("{}={}", LABEL.0, LABEL.1));
        let mut leases = follow::<Lease>(self.leases.clone(), &labelled, Watcher::Server);
        let mut watch_logger = WatchLogger::of("the servers' Leases");
        let mut renewing = interval(RENEW);
        renewing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (expiry, renews) = (
                self.member_set.next_expiry(),
                *in_charge.borrow_and_update(),
            );
            tokio::select! {
                Some(watch_event) = leases.next() => self.apply(watch_event, &mut watch_logger),
                _ = renewing.tick(), if renews => tokio::select! {
                    () = self.renew() => {}
                    () = shutdown.cancelled() => break,
                },
                Ok(()) = in_charge.changed() => renewing.reset_immediately(),
                () = sleep_until_opt(expiry) => {}
                () = shutdown.cancelled() => break,
            }
            if let Some(count) = self.member_set.change(Instant::now()) {
                tracing::info!(servers = count, "the servers of this control plane");
                self.count_tx.send_replace(count);
                let others = self.member_set.others().filter_map(reachable);
                self.others_tx.send_replace(others.collect());
            }
        }
        if self.counts {
            self.leave().await;
        }
    }

    fn apply(&mut self, watch_event: WatchEvent<Lease>, watch_logger: &mut WatchLogger) {
        let now = Instant::now();
        match &watch_event {
            WatchEvent::Lost(_) => {
                self.member_set.suspect(Uncertainty::Watch);
            }
            WatchEvent::Back => self.member_set.trust(Uncertainty::Watch, now),
            WatchEvent::Event(_) => {}
        }
        let Some(event) = watch_logger.tell(watch_event) else {
            return;
        };
        match event {
            Event::Apply(lease) | Event::InitApply(lease) => {
                let name = lease.name_any();
                let address = lease.annotations().get(ADDRESS).cloned();
                let spec = lease.spec.unwrap_or_default();
                let id = spec.holder_identity.unwrap_or_default();
                let renewed = spec.renew_time.map(|time| time.0.as_microsecond());
                let server = MemberServer { id, address };
                self.member_set
                    .seen(&name, server, renewed.unwrap_or(0), now);
            }
            Event::Delete(lease) => self.member_set.gone(&lease.name_any()),
            Event::Init => self.member_set.begin_list(),
            Event::InitDone => self.member_set.end_list(),
        }
    }

    async fn renew(&mut self) {
        let address = self
            .address
            .iter()
            .map(|address| (ADDRESS, address.to_string()));
        let annotations: BTreeMap<_, _> = address.collect();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "labels": {LABEL.0: LABEL.1},
                "annotations": annotations,
            },
            "spec": {
                "holderIdentity": self.server_id,
                "leaseDurationSeconds": LIFE.as_secs(),
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        });
        let params = PatchParams::apply(MANAGER).force();
        let lease = Patch::Apply(lease);
        let renewing = self.leases.patch(&self.name, &params, &lease);
        let renewed = match timeout(PATIENCE, renewing).await {
            Ok(renewed) => renewed.map(drop).map_err(|error| describe(&error)),
            Err(_elapsed) => Err(format!("no answer within {PATIENCE:?}")),
        };
        match renewed {
            Ok(()) => self.member_set.trust(Uncertainty::Renewal, Instant::now()),
            Err(error) => {
                if self.member_set.suspect(Uncertainty::Renewal) {
                    tracing::warn!(
                        lease = self.name,
                        error,
                        "cannot renew this server's Lease: agents may not look for this server \
                         until it is renewed; trying again every few seconds",
                    );
                }
            }
        }
    }

    /// Agents need not look for a server that has gone.
    async fn leave(&self) {
        let leaving = async {
            let Some(lease) = self.leases.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.server_id) {
                return Ok(());
            }
            let as_seen = DeleteParams::default().preconditions(Preconditions {
                resource_version: lease.metadata.resource_version,
                uid: lease.metadata.uid,
            });
            self.leases.delete(&self.name, &as_seen).await.map(drop)
        };
        let left: Result<kube::Result<()>, _> = timeout(FAREWELL_TIME, leaving).await;
        if let Ok(Err(error)) = left {
            let error = describe(&error);
            tracing::debug!(
                lease = self.name,
                error,
                "the Lease was not deleted, and will expire"
            );
        }
    }
}

/// A server that says where it is.
fn reachable(server: &MemberServer) -> Option<RelayServer> {
    let address = server.address.as_ref()?;
    match address.parse() {
        Ok(address) => Some(RelayServer {
            id: server.id.clone(),
            address,
        }),
        Err(error) => {
            tracing::warn!(id = server.id, %error, "a server's Lease names no address: nothing is relayed through it");
            None
        }
    }
}
