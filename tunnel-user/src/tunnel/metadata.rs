//! What the two ends tell each other when the control stream opens, in konnectivity's metadata
//! keys and some of our own that its peers ignore.

use std::net::IpAddr;

use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use crate::model::{AgentIdentity, NodeName, printable, printable_up_to};

/// The longest version that is shown.
const LONGEST_VERSION: usize = 64;

const AGENT_ID: &str = "agentid";
const AGENT_IDENTIFIERS: &str = "agentidentifiers";
const SERVER_ID: &str = "serverid";
const SERVER_COUNT: &str = "servercount";
/// Asks for, and grants, one HTTP/2 stream per connection. The value is the protocol's version.
const NATIVE: &str = "culvert-native";
const NATIVE_VERSION: &str = "1";
/// Says that the agent hands what comes with a dial to the target. From one that does not say so it would be lost.
const FIRST_BYTES: &str = "culvert-first-bytes";
const AGENT_VERSION: &str = "culvert-agent-version";
/// The ids of the servers that the agent has a session with, between commas. One of these answers
/// with [`HELD`] and registers nothing: behind a load balancer an agent finds the servers that it
/// lacks by asking again.
const SESSIONS_WITH: &str = "culvert-sessions-with";
/// Grants nothing: the agent has a session with this server already.
const HELD: &str = "culvert-held";
/// In a refusal: what is refused is the certificate, and the agent is to get another one.
const REFUSED: &str = "culvert-refused";
const CERTIFICATE: &str = "certificate";
const YES: &str = "1";

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentHello {
    pub(crate) node: NodeName,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) native: bool,
    pub(crate) takes_first_bytes: bool,
    pub(crate) version: String,
    /// The servers that it has a session with.
    pub(crate) sessions_with: Vec<String>,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerHello {
    pub(crate) id: String,
    pub(crate) count: u32,
    pub(crate) native: bool,
    /// The agent has a session with it already; this was no registration.
    pub(crate) held: bool,
}

/// What is wrong with a hello.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidHello {
    #[error("expected one `{0}` in the metadata, found {1}")]
    Count(&'static str, usize),
    #[error("`{0}` is not readable text")]
    NotText(&'static str),
    #[error("`agentid` {0}")]
    Node(#[from] crate::model::InvalidNodeName),
    #[error("`agentidentifiers` lists {key}={value}, which is no such address")]
    Address { key: String, value: String },
    #[error("`agentidentifiers` lists host={0}, which is not the node that `agentid` names")]
    Host(String),
    #[error("`agentidentifiers` lists {0}, which no certificate can prove")]
    Unprovable(String),
    #[error("`servercount` is {0:?}, not a positive number")]
    ServerCount(String),
}

impl AgentHello {
    /// Registers exactly what the identity proves, with a server that is not among these.
    pub(crate) fn of(identity: &AgentIdentity, sessions_with: Vec<String>) -> Self {
        Self {
            node: identity.node.clone(),
            addresses: identity.addresses.clone(),
            native: true,
            takes_first_bytes: true,
            version: crate::VERSION.to_owned(),
            sessions_with,
        }
    }

    pub(crate) fn write(&self, metadata: &mut MetadataMap) {
        let mut identifiers: Vec<_> = self
            .addresses
            .iter()
            .map(|ip| format!("{}={ip}", if ip.is_ipv4() { "ipv4" } else { "ipv6" }))
            .collect();
        identifiers.push(format!("host={}", self.node));
        put(metadata, AGENT_ID, self.node.as_str());
        put(metadata, AGENT_IDENTIFIERS, &identifiers.join("&"));
        put(metadata, AGENT_VERSION, &self.version);
        if !self.sessions_with.is_empty() {
            put(metadata, SESSIONS_WITH, &self.sessions_with.join(","));
        }
        if self.native {
            put(metadata, NATIVE, NATIVE_VERSION);
        }
        if self.takes_first_bytes {
            put(metadata, FIRST_BYTES, YES);
        }
    }

    pub(crate) fn read(metadata: &MetadataMap) -> Result<Self, InvalidHello> {
        let node: NodeName = exactly_one(metadata, AGENT_ID)?.parse()?;
        let addresses = match at_most_one(metadata, AGENT_IDENTIFIERS)? {
            Some(identifiers) => addresses(&identifiers, &node)?,
            None => Vec::new(),
        };
        let native = at_most_one(metadata, NATIVE)?.as_deref() == Some(NATIVE_VERSION);
        let first_bytes = at_most_one(metadata, FIRST_BYTES)?;
        let version = at_most_one(metadata, AGENT_VERSION)?.unwrap_or_default();
        let version = printable_up_to(&version, LONGEST_VERSION);
        let sessions_with = at_most_one(metadata, SESSIONS_WITH)?.unwrap_or_default();
        let sessions_with = sessions_with.split(',').filter(|id| !id.is_empty());
        Ok(Self {
            sessions_with: sessions_with.map(str::to_owned).collect(),
            node,
            addresses,
            native,
            takes_first_bytes: first_bytes.as_deref() == Some(YES),
            version,
        })
    }
}

impl ServerHello {
    pub(crate) fn write(&self, metadata: &mut MetadataMap) {
        put(metadata, SERVER_ID, &self.id);
        put(metadata, SERVER_COUNT, &self.count.to_string());
        if self.native {
            put(metadata, NATIVE, NATIVE_VERSION);
        }
        if self.held {
            put(metadata, HELD, YES);
        }
    }

    pub(crate) fn read(metadata: &MetadataMap) -> Result<Self, InvalidHello> {
        let count = exactly_one(metadata, SERVER_COUNT)?;
        Ok(Self {
            id: printable(&exactly_one(metadata, SERVER_ID)?),
            count: count
                .parse()
                .map_err(|_| InvalidHello::ServerCount(printable(&count)))?,
            native: at_most_one(metadata, NATIVE)?.as_deref() == Some(NATIVE_VERSION),
            held: at_most_one(metadata, HELD)?.as_deref() == Some(YES),
        })
    }
}

/// Says in a refusal that another certificate would be let in.
pub(crate) fn refuse_certificate(refusal: &mut MetadataMap) {
    put(refusal, REFUSED, CERTIFICATE);
}

/// Whether a refusal says so.
pub(crate) fn is_certificate_refused(refusal: &MetadataMap) -> bool {
    at_most_one(refusal, REFUSED).is_ok_and(|refused| refused.as_deref() == Some(CERTIFICATE))
}

/// Reads the addresses out of a URL query such as `ipv4=10.0.0.1&host=edge-1`. Keys that route by
/// anything but an address or the node's name could not be bound to a certificate.
fn addresses(identifiers: &str, node: &NodeName) -> Result<Vec<IpAddr>, InvalidHello> {
    let mut addresses = Vec::new();
    for pair in identifiers.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // The colons of an IPv6 address are the only thing that Go's agents escape here.
        let value = value.replace("%3A", ":").replace("%3a", ":");
        match key {
            "ipv4" | "ipv6" => {
                let parsed = value.parse::<IpAddr>().ok();
                let address = parsed.filter(|ip| ip.is_ipv4() == (key == "ipv4"));
                let invalid = || InvalidHello::Address {
                    key: key.to_owned(),
                    value: printable(&value),
                };
                addresses.push(address.ok_or_else(invalid)?);
            }
            "host" if value == node.as_str() => {}
            "host" => return Err(InvalidHello::Host(printable(&value))),
            _ => return Err(InvalidHello::Unprovable(printable(pair))),
        }
    }
    Ok(addresses)
}

fn put(metadata: &mut MetadataMap, key: &'static str, value: &str) {
    let value = MetadataValue::<Ascii>::try_from(value)
        .expect("node names, addresses, numbers and server ids are visible ASCII");
    metadata.insert(MetadataKey::from_static(key), value);
}

fn exactly_one(metadata: &MetadataMap, key: &'static str) -> Result<String, InvalidHello> {
    at_most_one(metadata, key)?.ok_or(InvalidHello::Count(key, 0))
}

fn at_most_one(metadata: &MetadataMap, key: &'static str) -> Result<Option<String>, InvalidHello> {
    let mut values = metadata.get_all(key).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    match values.count() {
        0 => {
            let text = first.to_str().map_err(|_| InvalidHello::NotText(key))?;
            Ok(Some(text.to_owned()))
        }
        more => Err(InvalidHello::Count(key, 1 + more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> AgentHello {
        AgentHello {
            node: "edge-1".parse().unwrap(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            native: true,
            takes_first_bytes: true,
            version: "0.1.0".into(),
            sessions_with: vec!["s-1".into(), "s-2".into()],
        }
    }

    fn with_identifiers(identifiers: &str) -> Result<AgentHello, InvalidHello> {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, AGENT_ID, "edge-1");
        put(&mut metadata, AGENT_IDENTIFIERS, identifiers);
        AgentHello::read(&metadata)
    }

    #[test]
    fn hellos_read_back_as_written() {
        let mut metadata = MetadataMap::new();
        hello().write(&mut metadata);
        assert_eq!(AgentHello::read(&metadata), Ok(hello()));

        let server = ServerHello {
            id: "s-1".into(),
            count: 3,
            native: true,
            held: true,
        };
        let mut metadata = MetadataMap::new();
        server.write(&mut metadata);
        assert_eq!(ServerHello::read(&metadata), Ok(server));
    }

    #[test]
    fn a_go_agent_is_understood_and_does_not_ask_for_native_mode() {
        let hello = with_identifiers("host=edge-1&ipv4=10.0.0.1&ipv6=fd00%3A%3A1").unwrap();
        assert_eq!(hello.addresses.len(), 2);
        assert!(!hello.native && !hello.takes_first_bytes && hello.sessions_with.is_empty());
    }

    #[test]
    fn identifiers_that_prove_nothing_are_refused() {
        for identifiers in [
            "cidr=10.0.0.0/8",
            "default-route=true",
            "host=edge-2",
            "ipv4=fd00::1",
            "ipv4=x",
        ] {
            assert!(
                with_identifiers(identifiers).is_err(),
                "{identifiers} was accepted"
            );
        }
    }

    #[test]
    fn the_agent_id_comes_exactly_once() {
        let mut metadata = MetadataMap::new();
        assert_eq!(
            AgentHello::read(&metadata),
            Err(InvalidHello::Count(AGENT_ID, 0))
        );
        put(&mut metadata, AGENT_ID, "edge-1");
        metadata.append(AGENT_ID, MetadataValue::from_static("edge-2"));
        assert_eq!(
            AgentHello::read(&metadata),
            Err(InvalidHello::Count(AGENT_ID, 2))
        );
    }
}
