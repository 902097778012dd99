//! Kubernetes Events: what a cluster operator sees in `kubectl describe`.
//!
//! ```text
//!  source, frontends --EventRecord--> EventWriter --> API server
//! ```
//! They are a courtesy: nobody ever waits for one. What cannot be written in time is left out and
//! counted; the log has it anyway.
//!
//! The server needs, in the namespace of the object that an event is about and in `default` for
//! Nodes: `events` of `events.k8s.io`, verbs `create` and `patch`.

mod writer;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;

pub use writer::EventWriter;

use crate::{
    model::NodeName,
    observability::{TokenBucket, TokenBuckets},
};

/// A crowd of problems at once is written; what is beyond that nobody would read.
const NOTICES: usize = 256;
/// A node without an agent is told of this often, however often it is asked for.
const NO_SESSION_PERIOD: Duration = Duration::from_mins(1);
/// Of all nodes without an agent, so many at once and then one a period are told of: less than what
/// can be written, so that problems, which are told once, do not get lost among them.
const NO_SESSION_BURST: u32 = 50;
const NO_SESSION_PACE: Duration = Duration::from_secs(2);
/// Events about one object: so many at once, then one a period. Whoever can change an object often, as
/// a node can its Node, must not silence what there is to say of others.
const OBJECT_BURST: u32 = 20;
const OBJECT_PERIOD: Duration = Duration::from_secs(30);
/// So many nodes are remembered before those that have been silent for a period are forgotten.
const REMEMBERED: usize = 1024;

/// Takes notice of what becomes an Event. Clones share one writer.
#[derive(Clone)]
pub struct Events {
    /// `anyone --EventRecord--> writer`
    notice_tx: mpsc::Sender<EventRecord>,
    shared: Arc<Pending>,
}

/// One Event of type `Warning`: something that a human should look at.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// The object it is about.
    pub about: ObjectReference,
    /// In `PascalCase`, at most 128 characters.
    pub reason: &'static str,
    /// What was tried, in `PascalCase`, at most 128 characters.
    pub action: &'static str,
    /// For a human; what is beyond 1 KiB is cut.
    pub note: String,
}

struct Pending {
    lost: AtomicU64,
    objects: Mutex<TokenBuckets>,
    no_session: Mutex<NoSession>,
}

struct NoSession {
    told: HashMap<NodeName, Instant>,
    budget: TokenBucket,
}

impl Events {
    /// Events of this server, which is known by `instance` (its pod's or machine's name), and what
    /// writes them.
    pub fn new(client: kube::Client, instance: &str) -> (Self, EventWriter) {
        let (notice_tx, notice_rx) = mpsc::channel(NOTICES);
        let shared = Arc::new(Pending::new(Instant::now()));
        let writer = EventWriter::new(client, instance, notice_rx, Arc::clone(&shared));
        (Self { notice_tx, shared }, writer)
    }

    /// Events that a test receives in the writer's place.
    #[cfg(test)]
    pub(super) fn received() -> (Self, mpsc::Receiver<EventRecord>) {
        let (notice_tx, notice_rx) = mpsc::channel(NOTICES);
        let shared = Arc::new(Pending::new(Instant::now()));
        (Self { notice_tx, shared }, notice_rx)
    }

    /// Hands a notice to the writer, or counts it as lost when that is busy or has heard much of the
    /// object.
    pub fn write(&self, notice: EventRecord) {
        let is_affordable = self.shared.is_affordable(&notice.about, Instant::now());
        if !is_affordable || self.notice_tx.try_send(notice).is_err() {
            self.shared.lose();
        }
    }

    /// A client asked for a node that has no session. Cheap enough to be told of each.
    pub fn no_session(&self, node: &NodeName) {
        if self.shared.tell_no_session(node, Instant::now()) {
            self.write(EventRecord {
                about: about_node(node),
                reason: "NoTunnelAgent",
                action: "Connect",
                note: format!(
                    "a connection to node {node} was refused: no agent of the node has a session \
                     with this culvert server; see whether the agent runs there and what it logs"
                ),
            });
        }
    }

    /// How many notices became no Event.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Pending {
    fn new(now: Instant) -> Self {
        Self {
            lost: AtomicU64::new(0),
            objects: Mutex::new(TokenBuckets::new(OBJECT_BURST, OBJECT_PERIOD)),
            no_session: Mutex::new(NoSession {
                told: HashMap::new(),
                budget: TokenBucket::new(NO_SESSION_BURST, NO_SESSION_PACE, now),
            }),
        }
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn is_affordable(&self, about: &ObjectReference, now: Instant) -> bool {
        let object = format!(
            "{}/{}/{}",
            about.kind.as_deref().unwrap_or_default(),
            about.namespace.as_deref().unwrap_or_default(),
            about.name.as_deref().unwrap_or_default()
        );
        let objects = self.objects.lock();
        let mut objects = objects.unwrap_or_else(PoisonError::into_inner);
        objects.take(&object, now)
    }

    fn tell_no_session(&self, node: &NodeName, now: Instant) -> bool {
        let recent = |told: &Instant| now.saturating_duration_since(*told) < NO_SESSION_PERIOD;
        let mut no_session = self
            .no_session
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let NoSession { told, budget } = &mut *no_session;
        if told.get(node).is_some_and(recent) {
            return false;
        }
        if told.len() >= REMEMBERED {
            told.retain(|_, told| recent(told));
        }
        told.insert(node.clone(), now);
        let is_affordable = budget.take(now).is_ok();
        if !is_affordable {
            self.lose();
        }
        is_affordable
    }
}

/// A Node as Events name it. The kubelet puts the name in the place of the UID, and
/// `kubectl describe node` looks for that
/// (<https://github.com/kubernetes/kubernetes/blob/v1.34.4/staging/src/k8s.io/kubectl/pkg/describe/describe.go>).
pub fn about_node(node: &NodeName) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_string()),
        uid: Some(node.to_string()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_an_agent_is_told_of_once_in_a_while() {
        let start = Instant::now();
        let shared = Pending::new(start);
        let (one, other) = ("e1".parse().unwrap(), "e2".parse().unwrap());
        assert!(shared.tell_no_session(&one, start));
        assert!(!shared.tell_no_session(&one, start + NO_SESSION_PERIOD / 2));
        assert!(shared.tell_no_session(&other, start + NO_SESSION_PERIOD / 2));
        assert!(shared.tell_no_session(&one, start + NO_SESSION_PERIOD));
    }

    #[test]
    fn nobody_waits_for_a_busy_writer_and_what_is_lost_is_counted() {
        let (events, mut notices) = Events::received();
        events.no_session(&"e0".parse().unwrap());
        let first = notices.try_recv().unwrap();
        (0..NOTICES + 3).for_each(|n| {
            events.write(EventRecord {
                about: about_node(&format!("e{}", n + 1).parse().unwrap()),
                ..first.clone()
            });
        });
        assert_eq!(events.lost(), 3);
        assert_eq!(first.about.name.as_deref(), Some("e0"));
        assert!(
            first.note.contains("no agent of the node"),
            "{}",
            first.note
        );
    }

    #[test]
    fn a_node_that_is_told_of_without_end_leaves_room_for_others() {
        let (events, mut notices) = Events::received();
        events.no_session(&"e0".parse().unwrap());
        let first = notices.try_recv().unwrap();
        (0..1000).for_each(|_| events.write(first.clone()));
        let told = std::iter::from_fn(|| notices.try_recv().ok()).count();
        assert_eq!(told, usize::try_from(OBJECT_BURST).unwrap() - 1);
        events.no_session(&"e1".parse().unwrap());
        assert!(notices.try_recv().is_ok());
    }

    #[test]
    fn a_crowd_of_nodes_without_agents_leaves_room_for_problems() {
        let (events, mut notices) = Events::received();
        let nodes = 0..3000;
        nodes.for_each(|n| events.no_session(&format!("e{n}").parse().unwrap()));
        let told = std::iter::from_fn(|| notices.try_recv().ok()).count();
        assert!((50..60).contains(&told), "{told}");
        assert_eq!(usize::try_from(events.lost()).unwrap(), 3000 - told);
    }

    #[test]
    fn nodes_that_were_told_of_long_ago_are_forgotten() {
        let mut now = Instant::now();
        let shared = Pending::new(now);
        for n in 0..3 * REMEMBERED {
            let node = format!("e{n}").parse().unwrap();
            shared.tell_no_session(&node, now);
            now += NO_SESSION_PERIOD / 512;
        }
        assert!(shared.no_session.lock().unwrap().told.len() <= REMEMBERED + 512);
    }
}
