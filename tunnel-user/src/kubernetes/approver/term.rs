//! One term of office: what the approver does from becoming the leader until it is none any more.

use std::{
    collections::{BTreeMap, HashSet},
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream::{BoxStream, FuturesUnordered},
};
use k8s_openapi::{
    api::{authentication::v1::SelfSubjectReview, certificates::v1::CertificateSigningRequest},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams, runtime::watcher::Event};
use tokio::{
    task::coop::consume_budget,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    Approver,
    csr_request::CsrRequest,
    decision::{CHANGE_TIME, Decision, Denial, Dependency, Knowledge, PendingReason, decide},
    queue::{Queue, Turn},
    writing::{Judged, WriteError, Written, write},
};
use crate::{
    kubernetes::{
        api_error::describe,
        certificates::{
            kind::{AGENT, CertificateKind, SERVER},
            progress::Progress,
        },
        watch::{Scope, WatchEvent, WatchLogger, Watcher, follow},
    },
    model::{Snapshot, printable},
    wait::sleep_until_opt,
};

/// How many decisions are written at the same time.
const MOST_WRITES: usize = 8;
/// The longest that one answer of the API server may take.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(15);
/// How often the API server is asked who this server is, until it tells.
const ASK_AGAIN: Duration = Duration::from_secs(10);

pub(super) struct LeaderTerm<'a> {
    approver: &'a Approver,
    api: Api<CertificateSigningRequest>,
    queue: Queue<Timestamp, Pending>,
    /// Names that the list of a signer's requests has shown so far; complete at its end.
    listed: BTreeMap<&'static str, HashSet<String>>,
    own_user: Option<String>,
}

/// What is kept of a request, whatever size it has: less than 16 KiB, mostly less than one.
struct Pending {
    judged: Judged,
    csr_request: CsrRequest,
}

impl<'a> LeaderTerm<'a> {
    pub(super) fn new(approver: &'a Approver) -> Self {
        Self {
            api: Api::all(approver.0.client.clone()),
            approver,
            queue: Queue::new(),
            listed: BTreeMap::new(),
            own_user: None,
        }
    }

    /// Never ends by itself.
    pub(super) async fn run(mut self) {
        let mut agents = self.follow(&AGENT);
        let mut servers = self.follow(&SERVER);
        let mut watching_agents = WatchLogger::of("certificate requests of agents");
        let mut watching_servers = WatchLogger::of("certificate requests of servers");
        let mut writes: FuturesUnordered<BoxFuture<'static, Written>> = FuturesUnordered::new();
        let mut snapshots = self.approver.0.snapshots.clone();
        let mut snapshot = snapshots.borrow_and_update().clone();
        let mut names = self.approver.0.names.clone();
        let mut own_user = pin!(own_user(self.approver.0.client.clone()));
        loop {
            while writes.len() < MOST_WRITES
                && let Some(write) = self.next().await
            {
                writes.push(write);
            }
            self.approver.0.counts.pending(self.queue.left());
            if self.queue.take_left_out() {
                (agents, servers) = (self.follow(&AGENT), self.follow(&SERVER));
            }
            let due = self.queue.due().filter(|_| writes.len() < MOST_WRITES);
            tokio::select! {
                Some(watch_event) = agents.next() => {
                    if let Some(event) = watching_agents.tell(watch_event) {
                        self.handle(&AGENT, event);
                    }
                }
                Some(watch_event) = servers.next() => {
                    if let Some(event) = watching_servers.tell(watch_event) {
                        self.handle(&SERVER, event);
                    }
                }
                Some(written) = writes.next(), if !writes.is_empty() => self.written(&written),
                Ok(()) = snapshots.changed() => {
                    let newer = snapshots.borrow_and_update().clone();
                    self.queue.reconsider(|dependency| differs(dependency, &snapshot, &newer));
                    snapshot = newer;
                }
                Ok(()) = names.changed() => {
                    self.queue.reconsider(|dependency| *dependency == Dependency::Names);
                }
                user = &mut own_user, if self.own_user.is_none() => {
                    self.own_user = Some(user);
                    self.queue.reconsider(|dependency| *dependency == Dependency::OwnUser);
                }
                () = sleep_until_opt(due) => {}
            }
        }
    }

    /// What others ask of other signers is never in memory here.
    fn follow(
        &self,
        kind: &CertificateKind,
    ) -> BoxStream<'static, WatchEvent<CertificateSigningRequest>> {
        follow(
            self.api.clone(),
            &Scope::OfSigner(kind.signer),
            Watcher::Server,
        )
    }

    fn handle(&mut self, kind: &'static CertificateKind, event: Event<CertificateSigningRequest>) {
        let listed = self.listed.entry(kind.signer).or_default();
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(csr) => {
                listed.extend(csr.metadata.name.clone());
                self.see(&csr);
            }
            Event::InitDone => {
                let of_signer = |pending: &Pending| pending.csr_request.kind.signer == kind.signer;
                self.queue.retain(listed, of_signer);
                listed.clear();
            }
            Event::Apply(csr) => self.see(&csr),
            Event::Delete(csr) => {
                self.queue
                    .remove(csr.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    fn see(&mut self, csr: &CertificateSigningRequest) {
        let Some(name) = csr.metadata.name.clone() else {
            return;
        };
        let created = csr.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let csr_request = (Progress::of(csr) == Progress::Pending)
            .then(|| CsrRequest::read(csr, self.approver.kinds()))
            .flatten();
        match (csr_request, created) {
            (Some(csr_request), Some(created)) => {
                let asker = csr_request.requester.asker();
                let judged = Judged::of(csr);
                let pending = Pending {
                    judged,
                    csr_request,
                };
                self.queue
                    .put(&name, (created, asker), pending, Instant::now());
            }
            (_, _) => self.queue.remove(&name),
        }
    }

    /// Decides until there is something to write. Thousands may have to be left before that: others
    /// have their turn on this thread in between.
    async fn next(&mut self) -> Option<BoxFuture<'static, Written>> {
        loop {
            consume_budget().await;
            let snapshot = self.approver.0.snapshots.borrow().clone();
            let names = self.approver.0.names.borrow().clone();
            let now = Instant::now();
            let (name, turn, age) = self.queue.next(now)?;
            let Turn::Decide(pending) = turn else {
                let denied = Decision::Deny(Denial::TooMany);
                return Some(write(self.api.clone(), name, None, denied).boxed());
            };
            let requester = printable(&pending.csr_request.requester.username);
            let knowledge = Knowledge {
                snapshot: &snapshot,
                own_user: self.own_user.as_deref(),
                names: names.as_ref(),
                agents: &self.approver.0.agents,
                relays: &self.approver.0.relays,
                longest_life: self.approver.0.longest_life,
            };
            match decide(&pending.csr_request, age, &knowledge) {
                Decision::Leave(pending) => {
                    let reason = pending.to_string();
                    let until = denied_at(&pending, age, now);
                    let dependency = pending.dependency();
                    if self.queue.leave(&name, dependency, until, reason.clone()) {
                        let reason = printable(&reason);
                        info!(
                            requester,
                            request = name,
                            reason,
                            "left a certificate request pending"
                        );
                    }
                }
                decision => {
                    let judged = Some(pending.judged.clone());
                    return Some(write(self.api.clone(), name, judged, decision).boxed());
                }
            }
        }
    }

    fn written(&mut self, written: &Written) {
        let Written {
            name,
            decision,
            requester,
            outcome,
        } = written;
        match outcome {
            Ok(()) => {
                self.queue.remove(name);
                match decision {
                    Decision::Deny(reason) => {
                        let reason = printable(&reason.to_string());
                        warn!(
                            requester,
                            request = name,
                            reason,
                            "denied a certificate request"
                        );
                        self.approver.0.counts.denied.inc();
                    }
                    Decision::Approve | Decision::Leave(_) => {
                        info!(requester, request = name, "approved a certificate request");
                        self.approver.0.counts.approved.inc();
                    }
                }
            }
            // It needs no decision any more.
            Err(WriteError::Outdated) if *decision == Decision::Deny(Denial::TooMany) => {
                self.queue.remove(name);
            }
            Err(WriteError::Outdated) => self.queue.failed(name, Instant::now()),
            Err(WriteError::Failed(error)) => {
                warn!(
                    requester,
                    request = name,
                    error,
                    "cannot write the decision on a certificate request"
                );
                self.queue.failed(name, Instant::now());
            }
        }
    }
}

/// Asks who this server is until the API server tells.
async fn own_user(client: Client) -> String {
    let reviews: Api<SelfSubjectReview> = Api::all(client);
    let (params, review) = (PostParams::default(), SelfSubjectReview::default());
    loop {
        match timeout(ANSWER_TIME, reviews.create(&params, &review)).await {
            Ok(Ok(review)) => {
                let user = review.status.and_then(|status| status.user_info);
                if let Some(user) = user.and_then(|user| user.username) {
                    return user;
                }
                warn!("the API server does not say which user this server is");
            }
            Ok(Err(error)) => warn!(
                error = describe(&error),
                "cannot learn which user this server is"
            ),
            Err(_elapsed) => warn!("the API server does not say in time which user this server is"),
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Whether these snapshots say different things of what a pending request depends on.
fn differs(dependency: &Dependency, one: &Snapshot, other: &Snapshot) -> bool {
    match dependency {
        Dependency::Node(node) => one.node(node) != other.node(node),
        Dependency::OwnUser | Dependency::Names | Dependency::Request => false,
    }
}

/// When a request that has been pending for so long becomes denied, if it does.
fn denied_at(pending: &PendingReason, age: Duration, now: Instant) -> Option<Instant> {
    pending
        .is_short()
        .then(|| now + CHANGE_TIME.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Node, NodeName, PortSet};

    fn snapshot(nodes: &[(&str, &str)]) -> Snapshot {
        let nodes = nodes.iter().map(|(name, address)| Node {
            name: name.parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            extra_ports: PortSet::new(),
            closed_gate: None,
            admits: None,
        });
        Snapshot::new(nodes, PortSet::new())
    }

    #[test]
    fn a_doubt_about_a_node_is_looked_at_again_when_that_node_changes() {
        let before = snapshot(&[("e1", "10.0.0.1"), ("e2", "10.0.0.2")]);
        let after = snapshot(&[("e1", "10.0.0.1"), ("e2", "10.0.0.9"), ("e3", "10.0.0.3")]);
        for (node, changes) in [("e1", false), ("e2", true), ("e3", true), ("e4", false)] {
            let dependency = Dependency::Node(node.parse().unwrap());
            assert_eq!(differs(&dependency, &before, &after), changes, "{node}");
        }
        assert!(!differs(&Dependency::Names, &before, &after));
    }

    #[test]
    fn a_doubt_that_time_settles_is_looked_at_again_when_it_becomes_a_denial() {
        let (now, age) = (Instant::now(), Duration::from_secs(20));
        let node: NodeName = "e1".parse().unwrap();
        let unknown = PendingReason::UnknownNode(node.clone());
        let addresses = vec!["10.0.0.9".parse().unwrap()];
        let address = PendingReason::Addresses { node, addresses };
        assert_eq!(denied_at(&unknown, age, now), None);
        let at = Some(now + CHANGE_TIME.checked_sub(age).unwrap());
        assert_eq!(denied_at(&address, age, now), at);
    }
}
