//! What a certificate, or a request for one, says of its holder: subject and alternative names.

use std::{fmt, net::IpAddr};

use rcgen::{DistinguishedName, DnType};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension, X509Extension},
    x509::X509Name,
};

/// A subject of one common name and one organisation, which for Kubernetes are user and group
/// (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// CN.
    pub common_name: &'static str,
    /// O.
    pub organization: &'static str,
}

/// The subject of every agent, the one that Yurt-Tunnel's agents have.
pub const AGENT_SUBJECT: Subject = Subject {
    common_name: "tunnel-agent-client",
    organization: "openyurt:yurttunnel",
};

/// The subject of every server that relays: for dials of its clients it is one client of another server.
pub const RELAY_SUBJECT: Subject = Subject {
    common_name: "tunnel-relay-client",
    organization: "openyurt:yurttunnel",
};

/// The subject by which kubelets know a server that speaks with them itself. Its common name is that of Yurt-Tunnel's,
/// but what it may do hangs on the organisation: approvers made for Yurt-Tunnel have given the other one to anybody.
pub const PROXY_SUBJECT: Subject = Subject {
    common_name: "tunnel-proxy-client",
    organization: "culvert:proxy",
};

/// The alternative names of a certificate or a request, each as often as it stands there.
#[derive(Debug, Default)]
pub(crate) struct AlternativeNames<'a> {
    pub(crate) dns: Vec<&'a str>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) uris: Vec<&'a str>,
    /// Mail addresses, directory names, and whatever else there is.
    pub(crate) others: usize,
}

/// An extension that is not what it should be.
#[derive(Debug)]
pub(crate) struct UnreadableExtension;

impl Subject {
    /// Whether a name consists of exactly these two.
    pub(crate) fn is_exactly(&self, name: &X509Name<'_>) -> bool {
        name.iter_attributes().count() == 2
            && self.is_claimed_by(name)
            && organizations(name).eq([self.organization])
    }

    /// Whether a name has this common name, whatever else it has.
    pub(crate) fn is_claimed_by(&self, name: &X509Name<'_>) -> bool {
        let common_names = name.iter_common_name();
        common_names
            .filter_map(|cn| cn.as_str().ok())
            .any(|cn| cn == self.common_name)
    }

    /// The subject of a certificate that is to be requested or issued.
    pub(crate) fn to_name(self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, self.common_name);
        name.push(DnType::OrganizationName, self.organization);
        name
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "O={}, CN={}", self.organization, self.common_name)
    }
}

fn organizations<'a>(name: &'a X509Name<'_>) -> impl Iterator<Item = &'a str> {
    name.iter_organization().filter_map(|o| o.as_str().ok())
}

impl<'a> AlternativeNames<'a> {
    /// The names among these extensions. None of the extensions may be unreadable.
    pub(crate) fn of(
        extensions: impl IntoIterator<Item = &'a X509Extension<'a>>,
    ) -> Result<Self, UnreadableExtension> {
        let mut names = Self::default();
        for extension in extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(san) => {
                    san.general_names.iter().for_each(|name| names.add(name));
                }
                ParsedExtension::ParseError { .. } => return Err(UnreadableExtension),
                _ => {}
            }
        }
        Ok(names)
    }

    fn add(&mut self, name: &'a GeneralName<'a>) {
        match name {
            GeneralName::DNSName(name) => self.dns.push(name),
            GeneralName::URI(uri) => self.uris.push(uri),
            GeneralName::IPAddress(octets) => match address(octets) {
                Some(ip) => self.ips.push(ip),
                None => self.others += 1,
            },
            _ => self.others += 1,
        }
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}
