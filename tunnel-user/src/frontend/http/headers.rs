//! What of a message's head is for the next hop alone (RFC 9110, 7.6.1), and goes no further.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ALT_SVC, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, EXPECT,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, REFRESH, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
        TE, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const OF_ONE_HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what ends here, and what `Connection` names. An upgrade that is asked for, or granted, stays.
pub(super) fn strip(headers: &mut HeaderMap) {
    let upgrade = upgrade(headers).cloned();
    let takes_trailers = has_token(headers, &TE, "trailers");
    // A length beside it is an attempt to make two readers see two messages: the coding counts.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| token.parse().ok())
        // Whoever names the length wants it to be missing, not the message to be another.
        .filter(|name| *name != CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&OF_ONE_HOP) {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// What the message asks to, or does, change the protocol to.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    has_token(headers, &CONNECTION, "upgrade").then_some(upgrade)
}

/// Of an answer, what is said of a whole site or host: to a browser all nodes, and whatever else has the server's host
/// name, are one.
const OF_THE_SITE: [HeaderName; 10] = [
    ALT_SVC,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("nel"),
    REFRESH,
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
    HeaderName::from_static("service-worker-allowed"),
    SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
    WWW_AUTHENTICATE,
];
/// Before the names of headers that let pages of other sites read an answer.
const ACCESS_CONTROL: &str = "access-control-";

/// Removes what a target's answer says of the site that it seems to be of.
pub(super) fn strip_site(headers: &mut HeaderMap) {
    let opening = headers.keys();
    let opening = opening.filter(|name| name.as_str().starts_with(ACCESS_CONTROL));
    let opening: Vec<_> = opening.cloned().collect();
    for name in opening.iter().chain(&OF_THE_SITE) {
        headers.remove(name);
    }
}

/// Takes from an answer what it could do in a browser, which would send the user's certificate along with whatever a
/// node's page asks of other nodes: to the browser they are all one site. A policy of the target's own stays, before
/// ours: of several sandboxes the last counts.
pub(super) fn disarm(headers: &mut HeaderMap) {
    headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What is at a path may be of another node tomorrow.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    has_token(headers, &EXPECT, "100-continue")
}

/// Adds whom the request comes from to those who passed it on before.
pub(super) fn add_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) {
    let before = headers.get_all(FORWARDED_FOR).iter();
    let mut all: Vec<&[u8]> = before.map(HeaderValue::as_bytes).collect();
    let peer = peer.to_string();
    all.push(peer.as_bytes());
    let all = HeaderValue::from_bytes(&all.join(&b", "[..]));
    // Values that were valid, with a comma between.
    if let Ok(all) = all {
        headers.insert(FORWARDED_FOR, all);
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|one| one.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        lines.collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_for_one_hop_and_what_connection_names_ends_here() {
        let mut all = headers(&[
            ("connection", "close, X-One"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("upgrade", "websocket"),
            ("authorization", "Bearer y"),
            ("trailer", "x-sum"),
        ]);
        strip(&mut all);
        assert_eq!(names(&all), ["authorization", "trailer", "x-three"]);
    }

    #[test]
    fn an_upgrade_stays_and_so_does_that_trailers_are_taken() {
        let mut all = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("te", "gzip, trailers"),
        ]);
        strip(&mut all);
        let expected = [
            ("connection", "upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("te", "trailers"),
        ];
        assert_eq!(all, headers(&expected));
    }

    #[test]
    fn a_length_beside_a_transfer_coding_does_not_count() {
        let mut all = headers(&[("content-length", "4"), ("transfer-encoding", "chunked")]);
        strip(&mut all);
        assert!(all.is_empty(), "{all:?}");
        let mut all = headers(&[("content-length", "4"), ("connection", "content-length")]);
        strip(&mut all);
        assert_eq!(all, headers(&[("content-length", "4")]));
    }

    #[test]
    fn what_a_browser_shows_may_do_nothing_there() {
        let mut all = headers(&[("content-security-policy", "default-src *")]);
        disarm(&mut all);
        let expected = [
            ("content-security-policy", "default-src *"),
            ("content-security-policy", "sandbox"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
        ];
        assert_eq!(all, headers(&expected));
    }

    #[test]
    fn a_target_says_nothing_of_the_whole_site() {
        let mut all = headers(&[
            ("set-cookie", "session=1; Domain=example.com"),
            ("strict-transport-security", "max-age=1"),
            ("clear-site-data", "*"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("www-authenticate", "Basic"),
            ("content-type", "text/plain"),
        ]);
        strip_site(&mut all);
        assert_eq!(names(&all), ["content-type"]);
    }

    #[test]
    fn the_client_is_added_to_those_before_it() {
        let mut all = headers(&[("x-forwarded-for", "a"), ("x-forwarded-for", "b, c")]);
        add_forwarded_for(&mut all, "10.244.0.7".parse().unwrap());
        assert_eq!(all, headers(&[("x-forwarded-for", "a, b, c, 10.244.0.7")]));
        let mut none = HeaderMap::new();
        add_forwarded_for(&mut none, "fd00::7".parse().unwrap());
        assert_eq!(none, headers(&[("x-forwarded-for", "fd00::7")]));
    }
}
