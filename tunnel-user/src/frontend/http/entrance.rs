//! Who may come in, and what each request may be: what differs between the ports of one proxy.

use std::sync::Arc;

use http::request::Parts;

use super::{
    Shared, allowed::AllowedSources, asked::Asked, audit::Audit, refusal::Refusal, route::Route,
    users::Users, visit::Visit,
};
use crate::{
    frontend::OwnAddresses, model::User, observability::metrics::Frontend, tunnel::Client,
};

/// By what clients are let in.
pub(super) enum Entrance {
    /// Where they come from; the target asks them for credentials, if anybody does.
    Sources(AllowedSources),
    /// Who they are: the target takes what they say for this server's word.
    Users(Box<Users>),
}

/// A request that may go on.
pub(super) struct Admitted {
    pub(super) route: Route,
    /// Whose it is, where that was asked.
    pub(super) user: Option<Arc<User>>,
}

impl Entrance {
    pub(super) fn frontend(&self) -> Frontend {
        match self {
            Self::Sources(_) => Frontend::Http,
            Self::Users(_) => Frontend::Https,
        }
    }

    pub(super) fn own_addresses(&self) -> &OwnAddresses {
        match self {
            Self::Sources(allowed) => &allowed.own_addresses,
            Self::Users(users) => &users.own_addresses,
        }
    }

    /// Whether its client may ask for anything at all.
    pub(super) fn lets_in(&self, visit: &Visit) -> Result<(), Refusal> {
        match self {
            Self::Sources(allowed) if !allowed.admit(visit.peer) => {
                let ip = visit.peer.0.ip().to_canonical();
                Err(Refusal::SourceNotAllowed(ip))
            }
            // Those who show a credential are let in by --clients before, and by what it is worth for each request.
            Self::Sources(_) | Self::Users(_) => Ok(()),
        }
    }
}

impl Shared {
    /// Where a request goes, if it may.
    pub(super) async fn admit(
        &self,
        visit: &Visit,
        parts: &Parts,
        audit: &mut Option<Audit>,
    ) -> Result<Admitted, Refusal> {
        let may_use_loopback = !self.guards_loopback_ports || visit.client == Client::Machine;
        let (route, user) = match &self.entrance {
            Entrance::Sources(_) => {
                let asked = Asked::of_http(parts)?;
                (Route::find(asked, &self.snapshots.borrow())?, None)
            }
            Entrance::Users(users) => {
                let admitted = users.admit(visit, parts, &self.snapshots, audit).await?;
                (admitted.0, Some(admitted.1))
            }
        };
        let route = route.allow_loopback(may_use_loopback)?;
        Ok(Admitted { route, user })
    }
}
