//! What tests of frontends share: nodes whose agent is that of [`TestServer::with_agent`], and a dialer to them.

use std::sync::Arc;

use tokio::time::Instant;

use super::{PATIENCE, TestServer, name};
use crate::{
    model::{Admits, IdentityKey, Node, PortSet, SnapshotReader},
    observability::metrics::Dials,
    tunnel::DialerOptions,
};

/// A node with this address, and without ports of its own.
pub(crate) fn enrolled(node: &str, address: &str) -> Node {
    Node {
        name: name(node),
        addresses: vec![address.parse().unwrap()],
        extra_ports: PortSet::new(),
        closed_gate: None,
        admits: Some(Admits::Enrolment(IdentityKey::from("k"))),
    }
}

impl TestServer {
    /// A dialer of this server, which waits for no agent and tells nobody of nodes without one.
    pub(crate) fn dialling(&self, snapshots: SnapshotReader, metrics: Dials) -> DialerOptions {
        DialerOptions {
            snapshots,
            sessions: self.sessions.clone(),
            relay: None,
            timeout: PATIENCE,
            patient_until: Instant::now(),
            on_no_session: Arc::new(|_| {}),
            metrics,
        }
    }
}
