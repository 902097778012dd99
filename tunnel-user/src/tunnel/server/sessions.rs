//! Which node has which sessions.
//!
//! A node normally has one. It has two while an agent moves from one to the other: the newest
//! gets the new connections, an older one ends with its last. A session of another identity never
//! displaces a live one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Session, SessionConnection, SessionReport};
use crate::{
    model::{AgentIdentity, NodeName, Snapshot, SnapshotReader, Target},
    pki::Validity,
    tunnel::{Client, DialError, FirstBytes, Refusal},
    wait::changed_before,
};

/// Attempts of one dial: a session may retire between being chosen and being asked.
const ATTEMPTS: usize = 2;

/// The live sessions of this server.
#[derive(Clone)]
pub struct Sessions {
    /// Also every node that has had one and has none now: nobody waits for an agent that left.
    by_node: Arc<Mutex<HashMap<NodeName, Vec<Arc<Session>>>>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            by_node: Arc::default(),
            changes: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Sessions {
    /// Dials through the node's newest session. Where there is none, and has not been one yet, waits for one until
    /// `patience` is over: a server that has just started gives agents the time to come along.
    pub(in crate::tunnel) async fn dial(
        &self,
        node: &NodeName,
        target: &Target,
        client: Client,
        first: &mut FirstBytes<'_>,
        patience: Duration,
    ) -> Result<SessionConnection, DialError> {
        let mut outcome = Err(DialError::NoSession(node.clone()));
        for _ in 0..ATTEMPTS {
            let Some(session) = self.wait_for(node, patience).await else {
                return outcome;
            };
            outcome = session.dial(target, client, first).await;
            let is_over = matches!(outcome, Err(DialError::SessionEnded(_)));
            if !is_over || !first.may_be_sent() {
                return outcome;
            }
        }
        outcome
    }

    /// Whether the node can be dialled now.
    pub fn has(&self, node: &NodeName) -> bool {
        self.lock().get(node).is_some_and(|live| is_served(live))
    }

    /// Whether the node can be dialled through an agent whose certificate names this address.
    pub fn has_address(&self, node: &NodeName, address: IpAddr) -> bool {
        let by_node = self.lock();
        let live = by_node.get(node).into_iter().flatten();
        let mut live = live.filter(|session| !session.has_expired() && !session.has_ended());
        live.any(|session| session.identity().addresses.contains(&address))
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Every node that can be dialled, in no particular order.
    pub fn nodes(&self) -> Vec<NodeName> {
        let by_node = self.lock();
        let live = by_node.iter().filter(|(_, live)| is_served(live));
        live.map(|(node, _)| node.clone()).collect()
    }

    /// Ticks whenever a session comes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Figures of every session, by node.
    pub fn reports(&self) -> Vec<SessionReport> {
        let mut reports: Vec<_> = self.all().iter().map(|session| session.report()).collect();
        reports.sort_by(|a, b| (&a.node, a.since).cmp(&(&b.node, b.since)));
        reports
    }

    /// Asks every agent to open another session, to whoever listens by then.
    pub fn drain(&self) {
        self.all().iter().for_each(|session| session.drain());
    }

    /// Ends the sessions of nodes that the snapshot no longer admits, as it changes.
    pub async fn follow(self, mut snapshots: SnapshotReader, shutdown: CancellationToken) {
        let mut before: Option<Arc<Snapshot>> = None;
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let concerned: Vec<NodeName> = match &before {
                Some(before) => {
                    let changes = snapshot.changed_nodes(before);
                    changes.map(|change| change.name().clone()).collect()
                }
                None => self.lock().keys().cloned().collect(),
            };
            for node in concerned {
                self.judge_again(&node, &snapshot);
            }
            before = Some(snapshot);
            if !changed_before(&mut snapshots, &shutdown).await {
                return;
            }
        }
    }

    fn judge_again(&self, node: &NodeName, snapshot: &Snapshot) {
        let held = self.lock().get(node).cloned().unwrap_or_default();
        for session in held {
            if let Err(refusal) = session.still_admitted(snapshot) {
                tracing::info!(%node, reason = %refusal, "ending the session");
                session.end();
            }
        }
        let is_over = |held: &Vec<_>| held.is_empty() && snapshot.node(node).is_none();
        let mut by_node = self.lock();
        if by_node.get(node).is_some_and(is_over) {
            by_node.remove(node);
        }
    }

    /// This agent has been given a certificate of that life: its sessions need not end with an older
    /// one before it has begun another.
    pub(in crate::tunnel) fn renewed(&self, identity: &AgentIdentity, validity: Validity) {
        let by_node = self.lock();
        let held = by_node.get(&identity.node).into_iter().flatten();
        held.filter(|session| session.identity().key == identity.key)
            .for_each(|session| session.renewed(validity));
    }

    /// Whether this agent has a session that is to stay.
    pub(super) fn holds(&self, identity: &AgentIdentity) -> bool {
        let by_node = self.lock();
        let mut held = by_node.get(&identity.node).into_iter().flatten();
        held.any(|session| {
            session.identity().key == identity.key && !session.has_ended() && !session.is_retiring()
        })
    }

    pub(super) fn register(&self, session: &Arc<Session>) -> Result<(), Refusal> {
        let identity = session.identity();
        {
            let mut by_node = self.lock();
            let held = by_node.entry(identity.node.clone()).or_default();
            if let Some(holder) = held
                .iter()
                .find(|holder| holder.identity().key != identity.key && !holder.has_ended())
            {
                tracing::warn!(
                    node = %identity.node, holder = %holder.peer(), claimant = %session.peer(),
                    "two identities claim the node: the one with the live session keeps it",
                );
                return Err(Refusal::HeldByOther(identity.node.clone()));
            }
            for older in held.iter() {
                tracing::info!(
                    node = %identity.node, older = %older.peer(), newer = %session.peer(),
                    "a newer session of the same identity takes the node over",
                );
                older.supersede(session);
                // It may have been begun with the older one of two certificates.
                session.renewed(older.validity());
            }
            held.push(Arc::clone(session));
        }
        self.changed();
        Ok(())
    }

    pub(super) fn remove(&self, session: &Arc<Session>) {
        {
            let mut by_node = self.lock();
            let node = &session.identity().node;
            if let Some(held) = by_node.get_mut(node) {
                held.retain(|other| !Arc::ptr_eq(other, session));
            }
        }
        self.changed();
    }

    async fn wait_for(&self, node: &NodeName, patience: Duration) -> Option<Arc<Session>> {
        let deadline = Instant::now() + patience;
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(live) = self.lock().get(node) {
                return newest(live);
            }
            let change = timeout_at(deadline, changes.changed()).await;
            change.ok()?.ok()?;
        }
    }

    fn all(&self) -> Vec<Arc<Session>> {
        self.lock().values().flatten().cloned().collect()
    }

    fn changed(&self) {
        self.changes.send_modify(|change| *change += 1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, Vec<Arc<Session>>>> {
        // The map is whole between any two of its operations, whatever panicked meanwhile.
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether anything new can go through one of them.
fn is_served(live: &[Arc<Session>]) -> bool {
    live.iter().any(|session| !session.has_expired())
}

/// The newest session that is not about to leave, or else the newest; none if all have ended or
/// may take nothing new.
fn newest(live: &[Arc<Session>]) -> Option<Arc<Session>> {
    let may_serve = |session: &&Arc<Session>| !session.has_expired() && !session.has_ended();
    let valid = || live.iter().rev().filter(may_serve);
    let staying = valid().find(|session| !session.is_retiring());
    staying.or_else(|| valid().next()).cloned()
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use time::OffsetDateTime;

    use super::*;
    use crate::{
        model::{IdentityKey, PeerAddr},
        tunnel::{
            Memory, Settings,
            carry::{ByteCounters, SessionFlow},
            server::{peer_identity::PeerIdentity, session::AboutAgent},
        },
    };

    fn session(key: &str) -> Arc<Session> {
        let identity = AgentIdentity {
            node: "edge-1".parse().unwrap(),
            addresses: Vec::new(),
            key: IdentityKey::from(key),
        };
        let peer = PeerAddr("192.0.2.1:1".parse().unwrap());
        let counters = ByteCounters::new(Counter::default(), Counter::default());
        let ended = CancellationToken::new();
        Session::new(
            PeerIdentity {
                identity,
                validity: Validity::starting(OffsetDateTime::UNIX_EPOCH, Duration::ZERO),
            },
            peer,
            AboutAgent {
                version: String::new(),
                takes_first_bytes: true,
            },
            Settings::default(),
            Memory::new(1 << 30, 1 << 18),
            SessionFlow::new(&Settings::default(), counters),
            ended,
        )
        .0
    }

    #[test]
    fn the_newest_of_one_identity_wins_and_the_older_retires() {
        let sessions = Sessions::default();
        let (older, newer) = (session("k"), session("k"));
        sessions.register(&older).unwrap();
        sessions.register(&newer).unwrap();
        let node = "edge-1".parse().unwrap();
        assert!(Arc::ptr_eq(
            &newest(&sessions.lock()[&node]).unwrap(),
            &newer
        ));
        assert!(older.has_ended(), "it carried nothing, so it ends at once");
        sessions.remove(&older);
        assert!(sessions.has(&node));
        sessions.remove(&newer);
        assert!(!sessions.has(&node));
    }

    #[test]
    fn another_identity_does_not_displace_a_live_session() {
        let sessions = Sessions::default();
        let holder = session("k");
        sessions.register(&holder).unwrap();
        assert!(matches!(
            sessions.register(&session("other")),
            Err(Refusal::HeldByOther(_))
        ));
        assert!(!holder.has_ended());
        sessions.remove(&holder);
        sessions.register(&session("other")).unwrap();
    }

    #[test]
    fn a_draining_session_is_the_last_choice() {
        let sessions = Sessions::default();
        let draining = session("k");
        sessions.register(&draining).unwrap();
        assert!(sessions.holds(draining.identity()));
        draining.agent_drains();
        assert!(!sessions.holds(draining.identity()));
        let node = "edge-1".parse().unwrap();
        assert!(Arc::ptr_eq(
            &newest(&sessions.lock()[&node]).unwrap(),
            &draining
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_waits_for_a_session_no_longer_than_its_patience() {
        let sessions = Sessions::default();
        let node = "edge-1".parse().unwrap();
        assert!(
            sessions
                .wait_for(&node, Duration::from_secs(1))
                .await
                .is_none()
        );
        let coming = sessions.clone();
        let registered = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            coming.register(&session("k")).unwrap();
        });
        assert!(
            sessions
                .wait_for(&node, Duration::from_secs(2))
                .await
                .is_some()
        );
        registered.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_session_has_ended_is_not_waited_for() {
        let sessions = Sessions::default();
        let ended = session("k");
        sessions.register(&ended).unwrap();
        sessions.remove(&ended);
        let started = Instant::now();
        let node = "edge-1".parse().unwrap();
        let found = sessions.wait_for(&node, Duration::from_secs(5)).await;
        assert!(found.is_none() && started.elapsed().is_zero());
    }
}
