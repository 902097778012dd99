//! Why a request got no answer of its target, as Kubernetes' own clients read it: a `Status` that names node, cause and
//! remedy.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;

use super::{access::Unproved, asked::Entry, body::Body};
use crate::{
    model::{AddressConflict, NodeAccess, NodeName, PodName},
    observability::metrics::{DialFailure, HttpReason},
    tunnel::{DialError, dial_failure},
};

/// When an agent that is away may be back: it tries again every few seconds.
const AGENT_COMES: Duration = Duration::from_secs(5);
/// When a place may be free.
const PLACE_COMES: Duration = Duration::from_secs(1);

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "{0} may not use this port: it is neither this machine nor in --http-allow-cidrs (in a cluster, unless that is \
         set, Nodes that are not tunnelled, and their pods)"
    )]
    SourceNotAllowed(IpAddr),
    #[error("the request names no host: send Host: NODE:PORT")]
    NoHost,
    #[error("X-Tunnel-Proxy-Dest has no port: send ADDRESS:PORT")]
    NoPort,
    #[error(
        "{header} {value:?} is no host and port: send NODE:PORT or ADDRESS:PORT, with IPv6 in brackets"
    )]
    Malformed { header: &'static str, value: String },
    #[error("{0} is there more than once: send it once")]
    Twice(&'static str),
    #[error(
        "the request names node {node} and {host}, which is not that node's: let X-Tunnel-Proxy-Host, \
         X-Tunnel-Proxy-Dest and Host agree, or leave out what is not needed"
    )]
    Contradiction { node: NodeName, host: String },
    #[error("this port takes requests, no {0}: send the request itself, with Host: NODE:PORT")]
    NotARequest(&'static str),
    #[error(
        "no tunnelled node has the name or address {0}: see `kubectl get nodes`, or `culvert status` on the server"
    )]
    UnknownNode(String),
    #[error("{} is the address of several nodes ({}): name one in X-Tunnel-Proxy-Host", .0.address, names(.0))]
    Contested(AddressConflict),
    #[error("port {port} of node {node} is not open to {}", open_ports(*.entry))]
    PortNotAllowed {
        node: NodeName,
        port: u16,
        entry: Entry,
    },
    #[error(
        "port {port} leads to the loopback of node {node}, and is for processes of the server's own machine: \
         --loopback-port-clients all lets others use it"
    )]
    LoopbackPort { node: NodeName, port: u16 },
    #[error("{0} has as many requests under way as it may: try again when some have ended")]
    TooMany(IpAddr),
    #[error("node {node}, target {dst}: {error}{}", remedy(.error))]
    Dial {
        node: NodeName,
        dst: SocketAddr,
        error: DialError,
    },
    #[error("node {node}, target {dst}: no answer that is HTTP ({cause}): is {} spoken there?", spoken(*.is_tls))]
    Target {
        node: NodeName,
        dst: SocketAddr,
        cause: String,
        is_tls: bool,
    },
    #[error(
        "node {node}, target {dst}: no TLS connection ({cause}): see whether TLS is spoken there; a kubelet has to take \
         client certificates of the cluster's CA (clientCAFile)"
    )]
    NoTls {
        node: NodeName,
        dst: SocketAddr,
        cause: String,
    },
    #[error(
        "node {node}, target {dst}: its certificate is not trusted ({cause}): give the kubelet one that the cluster's CA \
         signs (serverTLSBootstrap: true, and approve its request), or name the CA that signs it by --kubelet-ca"
    )]
    NotVerified {
        node: NodeName,
        dst: SocketAddr,
        cause: String,
    },
    #[error(
        "this server has no certificate for kubelets yet: its log, and `kubectl get csr`, say what it waits for"
    )]
    NoCertificate,
    #[error(
        "{0}: show a client certificate of the cluster's CA, or a bearer token that the cluster knows"
    )]
    Unauthenticated(Unproved),
    #[error(
        "Impersonate-* headers mean nothing here, for requests are done as whoever sends them: send them to the API \
         server, or leave them out"
    )]
    Impersonation,
    #[error(
        "this is for programs: a browser may not be made to ask by another site, or by what a node has answered"
    )]
    OtherSite,
    #[error("user {user:?} may not {access}: bind it to a ClusterRole that allows {} of nodes/{}", .access.verb.as_str(), .access.subresource.as_str())]
    NotPermitted { user: String, access: NodeAccess },
    #[error(
        "the API server did not say whether this may be done ({0}): see whether it runs, and whether this server's \
         account may create tokenreviews and subjectaccessreviews and get pods (overlays/https-terminate)"
    )]
    NotReviewed(String),
    #[error(
        "there is no pod {0} on a node: see `kubectl get pods -o wide`, or name the node in Host"
    )]
    UnknownPod(PodName),
    #[error("a kubelet knows no such method: send GET, HEAD, POST, PUT, PATCH or DELETE")]
    Method,
    #[error(
        "the path could be read in several ways: send it without empty, . or .. segments, and without escapes of these, \
         of slashes, or in its first segment"
    )]
    UnclearPath,
    #[error(
        "the request is not HTTP/1 as RFC 9112 has it: see its first line, Content-Length and Transfer-Encoding"
    )]
    BadHead,
    #[error("the request's head is too large: this port takes {most} bytes and {fields} fields")]
    HeadTooLarge { most: usize, fields: usize },
    #[error("the request's URL is too long")]
    UrlTooLong,
}

impl Refusal {
    pub(super) fn code(&self) -> StatusCode {
        match self {
            Self::NoHost
            | Self::NoPort
            | Self::Malformed { .. }
            | Self::Twice(_)
            | Self::Contradiction { .. }
            | Self::NotARequest(_)
            | Self::UnclearPath
            | Self::BadHead => StatusCode::BAD_REQUEST,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::SourceNotAllowed(_)
            | Self::PortNotAllowed { .. }
            | Self::LoopbackPort { .. }
            | Self::Impersonation
            | Self::OtherSite
            | Self::NotPermitted { .. } => StatusCode::FORBIDDEN,
            Self::UnknownNode(_) | Self::UnknownPod(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Contested(_) => StatusCode::CONFLICT,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Dial { error, .. } => of_dial(error),
            Self::Target { .. } | Self::NoTls { .. } | Self::NotVerified { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::NotReviewed(_) | Self::NoCertificate => StatusCode::SERVICE_UNAVAILABLE,
            Self::HeadTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UrlTooLong => StatusCode::URI_TOO_LONG,
        }
    }

    /// The same, as metrics count it.
    pub(super) fn reason(&self) -> HttpReason {
        match self {
            Self::SourceNotAllowed(_) => HttpReason::SourceNotAllowed,
            Self::PortNotAllowed { .. } | Self::LoopbackPort { .. } => HttpReason::PortNotAllowed,
            Self::UnknownNode(_) | Self::UnknownPod(_) | Self::Contested(_) => {
                HttpReason::UnknownNode
            }
            Self::Unauthenticated(_) => HttpReason::Unauthenticated,
            Self::NotPermitted { .. } | Self::Impersonation | Self::OtherSite => {
                HttpReason::NotPermitted
            }
            Self::NotReviewed(_) => HttpReason::NotReviewed,
            Self::NotVerified { .. } => HttpReason::NotVerified,
            Self::NoCertificate => HttpReason::NoCertificate,
            Self::TooMany(_) => HttpReason::TooMany,
            Self::Dial { error, .. } => match (error, of_dial(error)) {
                (DialError::NoSession(_), _) => HttpReason::NoSession,
                (_, StatusCode::GATEWAY_TIMEOUT) => HttpReason::TimedOut,
                (_, StatusCode::NOT_FOUND) => HttpReason::UnknownNode,
                _ => HttpReason::DialFailed,
            },
            Self::Target { .. } | Self::NoTls { .. } => HttpReason::TargetFailed,
            Self::HeadTooLarge { .. } | Self::UrlTooLong => HttpReason::TooLarge,
            Self::NoHost
            | Self::NoPort
            | Self::Malformed { .. }
            | Self::Twice(_)
            | Self::Contradiction { .. }
            | Self::NotARequest(_)
            | Self::Method
            | Self::UnclearPath
            | Self::BadHead => HttpReason::Malformed,
        }
    }

    /// Whether somebody has logged it already: the dialer tells each dial that failed.
    pub(super) fn is_logged(&self) -> bool {
        matches!(self, Self::Dial { .. })
    }

    /// The answer to the client.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::text(self.status()));
        *response.status_mut() = self.code();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Self::Unauthenticated(_) = self {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after() {
            headers.insert(RETRY_AFTER, after.as_secs().into());
        }
        response
    }

    /// The whole of it as bytes, for a client whose request could not even be read.
    pub(super) fn as_last_words(&self) -> String {
        let (code, status) = (self.code(), self.status());
        let length = status.len();
        format!(
            "HTTP/1.1 {code}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{status}"
        )
    }

    fn status(&self) -> String {
        let code = self.code();
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": kubernetes_reason(code),
            "code": code.as_u16(),
        });
        format!("{status}\n")
    }

    fn retry_after(&self) -> Option<Duration> {
        match self.code() {
            StatusCode::SERVICE_UNAVAILABLE => Some(AGENT_COMES),
            StatusCode::TOO_MANY_REQUESTS => Some(PLACE_COMES),
            _ => None,
        }
    }
}

fn of_dial(error: &DialError) -> StatusCode {
    match error {
        DialError::UnknownAddress(_) | DialError::UnknownNode(_) => StatusCode::NOT_FOUND,
        DialError::NoSession(_)
        | DialError::SessionEnded(_)
        | DialError::LinkEnded(_)
        | DialError::SessionFull { .. }
        | DialError::ClientFull { .. }
        | DialError::OutOfMemory { .. }
        | DialError::ClientOutOfMemory { .. } => StatusCode::SERVICE_UNAVAILABLE,
        DialError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        DialError::Refused(answer) => of_failure(dial_failure(answer)),
        DialError::Relayed { failure, .. } => of_failure(*failure),
    }
}

/// What the agent answered, or another server.
fn of_failure(failure: DialFailure) -> StatusCode {
    match failure {
        DialFailure::Denied => StatusCode::FORBIDDEN,
        DialFailure::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        DialFailure::NoSession
        | DialFailure::SessionLost
        | DialFailure::SessionFull
        | DialFailure::ClientFull
        | DialFailure::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// What to do about it, where the words of the dial do not say so.
fn remedy(error: &DialError) -> &'static str {
    match error {
        DialError::NoSession(_) => ": see whether its agent runs, and its log",
        DialError::SessionEnded(_) | DialError::LinkEnded(_) => ": try again",
        DialError::TimedOut(_) => {
            ": see whether the node is overloaded, or --dial-timeout too short for its link"
        }
        DialError::Refused(answer) => remedy_of(dial_failure(answer)),
        DialError::Relayed { failure, .. } => remedy_of(*failure),
        _ => "",
    }
}

fn remedy_of(failure: DialFailure) -> &'static str {
    match failure {
        DialFailure::Refused => ": see whether the service runs on the node, and listens there",
        DialFailure::TimedOut | DialFailure::Unreachable => ": see the node's own firewall",
        _ => "",
    }
}

/// `metav1.StatusReason`, where Kubernetes has one for the code.
fn kubernetes_reason(code: StatusCode) -> &'static str {
    match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::GATEWAY_TIMEOUT => "Timeout",
        StatusCode::BAD_GATEWAY => "BadGateway",
        StatusCode::URI_TOO_LONG => "URITooLong",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "RequestHeaderFieldsTooLarge",
        _ => "",
    }
}

fn open_ports(entry: Entry) -> &'static str {
    match entry {
        Entry::Http => {
            "HTTP: ports are those under http-proxy-ports and localhost-proxy-ports of the ports' ConfigMap (without a \
             cluster, --ports), and 10255"
        }
        Entry::Https(_) => {
            "HTTPS: ports are the kubelet's, and those under https-proxy-ports of the ports' ConfigMap"
        }
    }
}

fn spoken(is_tls: bool) -> &'static str {
    if is_tls { "HTTP by TLS" } else { "plain HTTP" }
}

fn names(conflict: &AddressConflict) -> impl fmt::Display {
    let names: Vec<_> = conflict.nodes.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
