//! Clients that say who they are, and get what the cluster lets that user have of a node.
//!
//! ```text
//!  request --credential--> user --Host, headers, a pod's path--> node, port --may the user?--> target, as this server
//! ```
//! What the target hears, it hears of this server, with this server's identity. So nothing that the client has said to
//! prove its own, or to be taken for somebody else, goes further.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header::AUTHORIZATION, request::Parts};

use super::{
    access::{Access, Review, Wanted, pod_in},
    asked::Asked,
    audit::Audit,
    refusal::Refusal,
    route::Route,
    visit::Visit,
};
use crate::{
    frontend::OwnAddresses,
    model::{Reviews, SnapshotReader, User},
};

/// Before the names of headers by which one user acts as another.
const IMPERSONATE: &str = "impersonate-";
/// Before those by which a proxy says for whom it speaks.
const REMOTE: &str = "x-remote-";

/// Who its clients are, and what they may do.
pub(super) struct Users {
    pub(super) own_addresses: OwnAddresses,
    access: Access,
    /// The port at which they arrive: a `Host` that names it means the kubelet.
    own_port: u16,
}

impl Users {
    pub(super) fn new(
        own_addresses: OwnAddresses,
        reviews: Arc<dyn Reviews>,
        own_port: u16,
    ) -> Self {
        Self {
            own_addresses,
            access: Access::new(reviews),
            own_port,
        }
    }

    /// Where the request goes, and whose it is, if that user may.
    pub(super) async fn admit(
        &self,
        visit: &Visit,
        parts: &Parts,
        snapshots: &SnapshotReader,
        audit: &mut Option<Audit>,
    ) -> Result<(Route, Arc<User>), Refusal> {
        let review = self.access.review(visit);
        let user = review.user(&parts.headers).await?;
        let audit = audit.insert(Audit::of(&user, parts));
        refuse_impersonation(&parts.headers)?;
        let route = self.route(&review, &user, parts, snapshots).await?;
        let wanted = if route.is_kubelet {
            Wanted::of_kubelet(&parts.method, parts.uri.path())?
        } else {
            Wanted::of_service(&parts.method)?
        };
        let wanted = wanted.of_node(route.node.clone());
        audit.asks(wanted.first());
        match review.permit(&user, &wanted).await {
            Ok(access) => audit.allowed(access),
            Err(refusal) => {
                if matches!(refusal, Refusal::NotPermitted { .. }) {
                    audit.denied();
                }
                return Err(refusal);
            }
        }
        Ok((route, user))
    }

    /// By `Host` and the two headers; where these name no node, and mean a kubelet, by the pod in the path.
    async fn route(
        &self,
        review: &Review<'_>,
        user: &Arc<User>,
        parts: &Parts,
        snapshots: &SnapshotReader,
    ) -> Result<Route, Refusal> {
        let asked = Asked::of_https(parts, self.own_port)?;
        let found = Route::find(asked, &snapshots.borrow());
        let (Err(Refusal::UnknownNode(_) | Refusal::NoHost), true) =
            (&found, asked.may_mean_a_pod())
        else {
            return found;
        };
        let path = parts.uri.path();
        let Some(pod) = pod_in(path) else {
            return found;
        };
        let wanted = Wanted::of_kubelet(&parts.method, path)?;
        let node = review.node_of(user, &pod, &wanted).await?;
        Route::to_kubelet(&node, asked.authority, &snapshots.borrow())
    }
}

/// Whoever asks to act as another would act as itself, and may do more.
fn refuse_impersonation(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut names = headers.keys();
    if names.any(|name| name.as_str().starts_with(IMPERSONATE)) {
        return Err(Refusal::Impersonation);
    }
    Ok(())
}

/// Removes what is for this server, and what a kubelet could take for somebody's word on who asks.
pub(super) fn strip_identity(headers: &mut HeaderMap) {
    let is_identity = |name: &HeaderName| {
        let text = name.as_str();
        *name == AUTHORIZATION || text.starts_with(IMPERSONATE) || text.starts_with(REMOTE)
    };
    let names: Vec<_> = headers
        .keys()
        .filter(|name| is_identity(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_says_who_asks_goes_further() {
        let mut headers = HeaderMap::new();
        for name in [
            "Authorization",
            "Impersonate-User",
            "impersonate-extra-scopes",
            "X-Remote-User",
            "x-remote-extra-a",
            "Accept",
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name.clone(), "a".parse().unwrap());
            headers.append(name, "b".parse().unwrap());
        }
        let refused = refuse_impersonation(&headers);
        assert_eq!(refused, Err(Refusal::Impersonation));
        strip_identity(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
        assert_eq!(refuse_impersonation(&headers), Ok(()));
    }
}
