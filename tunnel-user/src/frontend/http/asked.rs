//! What a request says about where it goes, read from its head: each thing once, or not at all.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{HOST, TRANSFER_ENCODING},
    request::Parts,
    uri::Authority,
};

use super::refusal::Refusal;
use crate::model::{TunnelPort, printable};

pub(super) const PROXY_HOST: &str = "x-tunnel-proxy-host";
pub(super) const PROXY_DEST: &str = "x-tunnel-proxy-dest";

/// What a request says about where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// `Host`, or the authority of an absolute target.
    pub(super) authority: Option<&'a str>,
    pub(super) proxy_host: Option<&'a str>,
    pub(super) proxy_dest: Option<&'a str>,
    pub(super) entry: Entry,
}

/// Where it came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Entry {
    /// Where plain HTTP is received, for ports on which it is spoken.
    #[default]
    Http,
    /// Where TLS ends, for kubelets and other ports on which TLS is spoken: at this port of ours.
    Https(u16),
}

impl<'a> Asked<'a> {
    pub(super) fn of_http(parts: &'a Parts) -> Result<Self, Refusal> {
        Self::of(parts, Entry::Http)
    }

    pub(super) fn of_https(parts: &'a Parts, own_port: u16) -> Result<Self, Refusal> {
        Self::of(parts, Entry::Https(own_port))
    }

    fn of(parts: &'a Parts, entry: Entry) -> Result<Self, Refusal> {
        if parts.method == Method::CONNECT {
            return Err(Refusal::NotARequest("CONNECT"));
        }
        let scheme = parts.uri.scheme_str();
        if scheme.is_some_and(|scheme| scheme != entry.scheme()) {
            return Err(Refusal::NotARequest(entry.other_protocol()));
        }
        let coding = only(&parts.headers, &TRANSFER_ENCODING, "Transfer-Encoding")?;
        if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case("chunked")) {
            // It ends here with the chunks, and the target would not know that there was one.
            return Err(Refusal::NotARequest("transfer coding but chunked"));
        }
        let host = only(&parts.headers, &HOST, "Host")?;
        let header = |name, shown| only(&parts.headers, &HeaderName::from_static(name), shown);
        Ok(Self {
            // Of a proxy's client: RFC 9112, 3.2.2 says that it counts, not Host.
            authority: parts.uri.authority().map(Authority::as_str).or(host),
            proxy_host: header(PROXY_HOST, "X-Tunnel-Proxy-Host")?,
            proxy_dest: header(PROXY_DEST, "X-Tunnel-Proxy-Dest")?,
            entry,
        })
    }

    /// Whether the pod that its path names may say where it goes: it means the kubelet, for it names no other port, and
    /// no header says which node.
    pub(super) fn may_mean_a_pod(&self) -> bool {
        let Entry::Https(own) = self.entry else {
            return false;
        };
        let port = self.authority.map(port_of);
        let means_kubelet = match port {
            None | Some(None) => true,
            Some(Some(port)) => {
                port == own.to_string() || port == TunnelPort::KUBELET.number().to_string()
            }
        };
        means_kubelet && self.proxy_host.is_none() && self.proxy_dest.is_none()
    }
}

impl Entry {
    fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https(_) => "https",
        }
    }

    fn other_protocol(self) -> &'static str {
        match self {
            Self::Http => "URL of another protocol than http",
            Self::Https(_) => "URL of another protocol than https",
        }
    }
}

/// What stands behind the host, if anything does.
fn port_of(authority: &str) -> Option<&str> {
    let behind_host = authority
        .rsplit_once(']')
        .map_or(authority, |(_, rest)| rest);
    behind_host.rsplit_once(':').map(|(_, port)| port)
}

/// The header's value, if it is there once.
fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    header: &'static str,
) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::Twice(header));
    }
    let read = |value: &'a HeaderValue| {
        value.to_str().map_err(|_| Refusal::Malformed {
            header,
            value: printable(&String::from_utf8_lossy(value.as_bytes())),
        })
    };
    value.map(read).transpose()
}
