//! Clients that say who they are, and get what the cluster lets that user have of a node.
//!
//! ```text
//!  request --credential--> user --Host, headers, a pod's path--> node, port --may the user?--> target, as this server
//! ```
//! What the target hears, it hears of this server, with this server's identity. So nothing that the client has said to
//! prove its own, or to be taken for somebody else, goes further.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL},
    request::Parts,
};

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
/// By which browsers say what has made them ask.
const FETCH_SITE: &str = "sec-fetch-site";
/// Before a bearer token among the protocols that a WebSocket asks for: the API server takes one there.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

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
        let route = self
            .permitted_route(&review, &user, parts, snapshots, audit)
            .await;
        if let Err(Refusal::NotPermitted { access, .. }) = &route {
            audit.asks(access.clone());
            audit.denied();
        }
        Ok((route?, user))
    }

    async fn permitted_route(
        &self,
        review: &Review<'_>,
        user: &Arc<User>,
        parts: &Parts,
        snapshots: &SnapshotReader,
        audit: &mut Audit,
    ) -> Result<Route, Refusal> {
        refuse_impersonation(&parts.headers)?;
        refuse_other_sites(&parts.headers)?;
        let route = self.route(review, user, parts, snapshots).await?;
        let wanted = if route.is_kubelet {
            Wanted::of_kubelet(&parts.method, parts.uri.path())?
        } else {
            Wanted::of_service(&parts.method)?
        };
        let wanted = wanted.of_node(route.node.clone());
        audit.asks(wanted.first());
        audit.allowed(review.permit(user, &wanted).await?);
        Ok(route)
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

/// Impersonation is not carried out: a request for it would be made with the rights of the client itself.
fn refuse_impersonation(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut names = headers.keys();
    if names.any(|name| name.as_str().starts_with(IMPERSONATE)) {
        return Err(Refusal::Impersonation);
    }
    Ok(())
}

/// A browser shows its user's certificate whoever has made it ask: the page of another site, or of a node, which is
/// none. It says so by itself, and no page can say otherwise (Fetch Metadata Request Headers, 2.4; RFC 6454, 7.3): of
/// those for a WebSocket some say the origin alone. Programs say nothing, or that they are where they ask.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_users_own = |site: &HeaderValue| site == "same-origin" || site == "none";
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let is_own_origin = |origin: &HeaderValue| {
        let origin = origin.to_str().ok();
        let authority = origin.and_then(|origin| Some(origin.split_once("://")?.1));
        let is_host =
            |host: &[u8]| authority.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(host));
        host.is_some_and(is_host)
    };
    let mut sites = headers.get_all(FETCH_SITE).iter();
    let mut origins = headers.get_all(ORIGIN).iter();
    if sites.all(is_users_own) && origins.all(is_own_origin) {
        return Ok(());
    }
    Err(Refusal::OtherSite)
}

/// Removes what is for this server, or for others of its host, as cookies are, and what a kubelet could take for
/// somebody's word on who asks.
pub(super) fn strip_identity(headers: &mut HeaderMap) {
    let is_identity = |name: &HeaderName| {
        let text = name.as_str();
        *name == AUTHORIZATION
            || *name == COOKIE
            || text.starts_with(IMPERSONATE)
            || text.starts_with(REMOTE)
    };
    let names: Vec<_> = headers
        .keys()
        .filter(|name| is_identity(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    if protocols.iter().any(has_token) {
        let left = protocols.iter().filter_map(|value| value.to_str().ok());
        let left = left.flat_map(|value| value.split(',')).map(str::trim);
        let left: Vec<_> = left
            .filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL))
            .collect();
        let left = HeaderValue::from_str(&left.join(", "));
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        // Of values that were valid.
        if let Some(left) = left.ok().filter(|left| !left.is_empty()) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, left);
        }
    }
}

fn has_token(protocols: &HeaderValue) -> bool {
    let value = String::from_utf8_lossy(protocols.as_bytes());
    value.contains(TOKEN_PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_asks_for_its_user_and_for_no_page() {
        let said = |site: Option<&'static str>| {
            let site =
                site.map(|site| (HeaderName::from_static(FETCH_SITE), site.parse().unwrap()));
            refuse_other_sites(&site.into_iter().collect())
        };
        for own in [None, Some("none"), Some("same-origin")] {
            assert_eq!(said(own), Ok(()), "{own:?}");
        }
        for other in ["cross-site", "same-site", "", "None"] {
            assert_eq!(said(Some(other)), Err(Refusal::OtherSite), "{other}");
        }
    }

    #[test]
    fn a_page_that_opens_a_web_socket_is_known_by_its_origin() {
        let said = |origins: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "cp.example:10263".parse().unwrap());
            for origin in origins {
                headers.append(ORIGIN, origin.parse().unwrap());
            }
            refuse_other_sites(&headers)
        };
        for own in [
            &[][..],
            &["https://cp.example:10263"],
            &["https://CP.example:10263"],
        ] {
            assert_eq!(said(own), Ok(()), "{own:?}");
        }
        for other in [
            &["https://evil.example"][..],
            &["https://cp.example"],
            &["https://cp.example:10263.evil.example"],
            &["null"],
            &[""],
            &["https://cp.example:10263", "https://evil.example"],
        ] {
            assert_eq!(said(other), Err(Refusal::OtherSite), "{other:?}");
        }
        let nameless = [(ORIGIN, "https://evil.example".parse().unwrap())];
        let nameless = nameless.into_iter().collect();
        assert_eq!(refuse_other_sites(&nameless), Err(Refusal::OtherSite));
    }

    #[test]
    fn nothing_that_says_who_asks_goes_further() {
        let mut headers = HeaderMap::new();
        for name in [
            "Authorization",
            "Cookie",
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
        let protocols = SEC_WEBSOCKET_PROTOCOL;
        let token = "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.abc";
        headers.append(&protocols, token.parse().unwrap());
        headers.append(&protocols, "v5.channel.k8s.io".parse().unwrap());
        strip_identity(&mut headers);
        let asked = headers.remove(&protocols).unwrap();
        assert_eq!(asked, "v4.channel.k8s.io, v5.channel.k8s.io");
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
        assert_eq!(refuse_impersonation(&headers), Ok(()));
    }
}
