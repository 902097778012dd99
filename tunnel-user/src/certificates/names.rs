//! What a certificate has to vouch for.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use crate::model::NodeName;

/// The names of a certificate: those under which a server is dialled, or those of an agent's node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Host names.
    pub dns: BTreeSet<String>,
    /// Addresses; IPv4 as such, never as v4-mapped IPv6.
    pub ips: BTreeSet<IpAddr>,
}

impl CertificateNames {
    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.ips.is_empty()
    }

    /// Those of an agent's node.
    pub fn of_node(node: &NodeName, ips: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            dns: [node.to_string()].into(),
            ips: ips.into_iter().map(|ip| ip.to_canonical()).collect(),
        }
    }

    /// Whether every name of `others` is among these.
    pub fn contains(&self, others: &Self) -> bool {
        self.dns.is_superset(&others.dns) && self.ips.is_superset(&others.ips)
    }

    /// The names that are not among `others`.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self {
            dns: &self.dns - &others.dns,
            ips: &self.ips - &others.ips,
        }
    }
}

impl fmt::Display for CertificateNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ips = self.ips.iter().map(ToString::to_string);
        let all: Vec<String> = self.dns.iter().cloned().chain(ips).collect();
        f.write_str(&all.join(", "))
    }
}
