//! What a relayed dial says on the wire: the head of a request, and that of its answer.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::{
    model::{NodeName, OriginalDst, ServerAddr, printable},
    observability::metrics::DialFailure,
    tunnel::{Destination, DialError},
};

/// The path of the request whose stream carries one relayed connection.
pub(in crate::tunnel) const RELAY_PATH: &str = "/culvert.v1.Relay/Carry";
/// The address and port that the client dialled.
const ADDRESS: HeaderName = HeaderName::from_static("culvert-address");
/// The node that it named, and the port; without an address, or besides one.
const NODE: HeaderName = HeaderName::from_static("culvert-node");
/// How many bytes of the client follow before the answer.
const FIRST_BYTES: HeaderName = HeaderName::from_static("culvert-first-bytes");
/// Why there is no connection, as metrics count it.
const FAILURE: HeaderName = HeaderName::from_static("culvert-dial-failure");
/// The same in words.
const MESSAGE: HeaderName = HeaderName::from_static("culvert-dial-message");

/// A dial that another server is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RelayRequest {
    pub(super) destination: Destination,
    /// At most [`FirstBytes::MOST`](crate::tunnel::FirstBytes::MOST).
    pub(super) first_bytes: usize,
}

/// What keeps a relayed dial from being understood.
#[derive(Debug, thiserror::Error)]
#[error("not a relayed dial: {0}")]
pub(super) struct InvalidRequest(&'static str);

/// Why another server has not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotRelayed {
    /// It has no session of that node: perhaps another server has.
    Elsewhere,
    /// It has one, and this came of it.
    Failed {
        failure: DialFailure,
        message: String,
    },
}

impl RelayRequest {
    pub(super) fn to_http(&self, server: &ServerAddr) -> Request<()> {
        let (address, node) = match &self.destination {
            Destination::Address(dst) => (Some(dst), None),
            Destination::Node(node, port) => (None, Some((node, *port))),
            Destination::NodeAt(node, dst) => (Some(dst), Some((node, dst.0.port()))),
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://{server}{RELAY_PATH}"));
        if let Some(address) = address {
            request = request.header(ADDRESS, address.0.to_string());
        }
        if let Some((node, port)) = node {
            request = request.header(NODE, format!("{node}:{port}"));
        }
        request
            .header(FIRST_BYTES, self.first_bytes)
            .body(())
            .expect("addresses and node names make valid headers")
    }

    pub(super) fn read(headers: &HeaderMap, most: usize) -> Result<Self, InvalidRequest> {
        let address = text(headers, &ADDRESS).map(|text| text.parse().map(OriginalDst));
        let node = text(headers, &NODE).map(|text| node_and_port(text).ok_or(()));
        let destination = match (address, node) {
            (Some(Ok(address)), None) => Destination::Address(address),
            (None, Some(Ok((node, port)))) => Destination::Node(node, port),
            (Some(Ok(address)), Some(Ok((node, _)))) => Destination::NodeAt(node, address),
            (None, None) => return Err(InvalidRequest("it names no destination")),
            (_, _) => return Err(InvalidRequest("its destination is none")),
        };
        let first_bytes = text(headers, &FIRST_BYTES).and_then(|count| count.parse().ok());
        let first_bytes = first_bytes.filter(|count| *count <= most);
        Ok(Self {
            destination,
            first_bytes: first_bytes.ok_or(InvalidRequest("its first bytes are too many"))?,
        })
    }
}

impl NotRelayed {
    pub(super) fn to_http(&self) -> Response<()> {
        let mut head = Response::new(());
        match self {
            Self::Elsewhere => *head.status_mut() = StatusCode::NOT_FOUND,
            Self::Failed { failure, message } => {
                *head.status_mut() = StatusCode::BAD_GATEWAY;
                let headers = head.headers_mut();
                headers.insert(FAILURE, HeaderValue::from_static(failure.as_str()));
                // What is not ASCII is left out of the words, never the cause.
                let message = HeaderValue::from_str(&printable(message));
                headers.extend(message.ok().map(|message| (MESSAGE, message)));
            }
        }
        head
    }

    pub(super) fn read(status: StatusCode, headers: &HeaderMap) -> Self {
        if status == StatusCode::NOT_FOUND {
            return Self::Elsewhere;
        }
        let failure = text(headers, &FAILURE).and_then(|text| {
            let mut known = DialFailure::ALL.iter();
            known.find(|failure| failure.as_str() == text).copied()
        });
        let message = text(headers, &MESSAGE).map(printable);
        Self::Failed {
            failure: failure.unwrap_or(DialFailure::Protocol),
            message: message.unwrap_or_else(|| format!("HTTP status {status}")),
        }
    }
}

impl From<DialError> for NotRelayed {
    fn from(error: DialError) -> Self {
        match &error {
            DialError::NoSession(_) | DialError::UnknownNode(_) | DialError::UnknownAddress(_) => {
                Self::Elsewhere
            }
            DialError::Refused(answer) => Self::Failed {
                failure: error.failure(),
                message: answer.clone(),
            },
            _ => Self::Failed {
                failure: error.failure(),
                message: error.to_string(),
            },
        }
    }
}

fn node_and_port(text: &str) -> Option<(NodeName, u16)> {
    let (node, port) = text.rsplit_once(':')?;
    Some((node.parse().ok()?, port.parse().ok()?))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 16 * 1024;

    #[test]
    fn a_request_reads_as_it_was_written() {
        let server = "10.77.0.2:10262".parse().unwrap();
        for (destination, first_bytes) in [
            (
                Destination::Address(OriginalDst("10.78.0.11:10250".parse().unwrap())),
                0,
            ),
            (
                Destination::Address(OriginalDst("[fd00::1]:9100".parse().unwrap())),
                517,
            ),
            // A node's name may look like an address.
            (
                Destination::Node("10.78.0.11".parse().unwrap(), 10250),
                MOST,
            ),
            (
                Destination::NodeAt(
                    "edge-1".parse().unwrap(),
                    OriginalDst("[fd00::1]:9100".parse().unwrap()),
                ),
                1,
            ),
        ] {
            let request = RelayRequest {
                destination,
                first_bytes,
            };
            let written = request.to_http(&server);
            assert_eq!(written.uri().path(), RELAY_PATH);
            let read = RelayRequest::read(written.headers(), MOST).unwrap();
            assert_eq!(read, request);
        }
    }

    #[test]
    fn what_is_no_request_is_none() {
        let headers = |lines: &[(HeaderName, &'static str)]| -> HeaderMap {
            let lines = lines.iter().cloned();
            lines
                .map(|(name, text)| (name, HeaderValue::from_static(text)))
                .collect()
        };
        for lines in [
            &[][..],
            &[(FIRST_BYTES, "0")],
            &[(ADDRESS, "10.78.0.11:10250")],
            &[(ADDRESS, "10.78.0.11"), (FIRST_BYTES, "0")],
            &[(ADDRESS, "10.78.0.11:10250"), (FIRST_BYTES, "16385")],
            &[(NODE, "edge_1:10250"), (FIRST_BYTES, "0")],
            &[(NODE, "edge-1:70000"), (FIRST_BYTES, "0")],
        ] {
            assert!(
                RelayRequest::read(&headers(lines), MOST).is_err(),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn an_answer_reads_as_it_was_written() {
        let refused = DialError::Refused("dial tcp 127.0.0.1:1: connection refused".into());
        for (answer, expected) in [
            (NotRelayed::Elsewhere, NotRelayed::Elsewhere),
            (
                refused.into(),
                NotRelayed::Failed {
                    failure: DialFailure::Refused,
                    message: "dial tcp 127.0.0.1:1: connection refused".into(),
                },
            ),
            (
                NotRelayed::Failed {
                    failure: DialFailure::TimedOut,
                    message: "zu spät".into(),
                },
                NotRelayed::Failed {
                    failure: DialFailure::TimedOut,
                    message: "HTTP status 502 Bad Gateway".into(),
                },
            ),
        ] {
            let written = answer.to_http();
            let read = NotRelayed::read(written.status(), written.headers());
            assert_eq!(read, expected);
        }
    }
}
