//! Who did what to which node: one line for each request of somebody whose identity was proved. They are not limited in
//! number, as other lines are, for each of them is somebody's doing that the cluster knows.

use std::time::Duration;

use http::{StatusCode, request::Parts};

use crate::{
    model::{NodeAccess, PeerAddr, User, printable},
    observability::AUDIT,
};

/// The most groups that are named.
const MOST_GROUPS: usize = 16;

/// What is known of a request so far.
pub(super) struct Audit {
    user: String,
    groups: String,
    method: String,
    /// A query may hold secrets.
    path: String,
    access: Option<NodeAccess>,
    decision: Decision,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// It failed before.
    None,
    Allowed,
    Denied,
}

impl Audit {
    pub(super) fn of(user: &User, parts: &Parts) -> Self {
        let groups = user.groups.iter().take(MOST_GROUPS).map(String::as_str);
        Self {
            user: printable(&user.name),
            groups: printable(&groups.collect::<Vec<_>>().join(",")),
            method: printable(parts.method.as_str()),
            path: printable(parts.uri.path()),
            access: None,
            decision: Decision::None,
        }
    }

    /// It is about this.
    pub(super) fn asks(&mut self, access: NodeAccess) {
        self.access = Some(access);
    }

    /// The user may do this.
    pub(super) fn allowed(&mut self, access: NodeAccess) {
        self.asks(access);
        self.decision = Decision::Allowed;
    }

    /// The user may not do what was [asked](Self::asks).
    pub(super) fn denied(&mut self) {
        self.decision = Decision::Denied;
    }

    pub(super) fn tell(&self, peer: PeerAddr, code: StatusCode, duration: Duration) {
        let access = self.access.as_ref();
        let node = access.and_then(|access| access.node.as_ref());
        tracing::info!(
            target: AUDIT,
            user = self.user, groups = self.groups,
            node = node.map(tracing::field::display),
            verb = access.map(|access| access.verb.as_str()),
            subresource = access.map(|access| access.subresource.as_str()),
            method = self.method, path = self.path,
            decision = self.decision.as_str(), code = code.as_u16(), ?duration, %peer,
            "request for a node",
        );
    }
}

impl Decision {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }
}
