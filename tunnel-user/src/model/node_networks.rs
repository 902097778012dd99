//! Where nodes may have addresses at all: the operator's word against whatever a node says.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// Networks in which nodes have their addresses. Without any, nodes may have whatever address no
/// other rule forbids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNetworks(Vec<IpNet>);

/// One network, as `--node-networks` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeNetwork(IpNet);

/// Why a text is not a [`NodeNetwork`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network: expected ADDRESS/LENGTH, as in 10.0.0.0/8 or fd00:1::/64")]
pub struct InvalidNodeNetwork(String);

impl NodeNetworks {
    /// Whether nobody has said where nodes are.
    pub fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a node may have this address.
    pub fn admit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromIterator<NodeNetwork> for NodeNetworks {
    fn from_iter<I: IntoIterator<Item = NodeNetwork>>(networks: I) -> Self {
        Self(networks.into_iter().map(|network| network.0).collect())
    }
}

impl FromStr for NodeNetwork {
    type Err = InvalidNodeNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.trim().parse::<IpNet>();
        network
            .map(|network| Self(network.trunc()))
            .map_err(|_| InvalidNodeNetwork(text.to_owned()))
    }
}

impl fmt::Display for NodeNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> NodeNetworks {
        list.iter()
            .map(|text| text.parse::<NodeNetwork>().unwrap())
            .collect()
    }

    #[test]
    fn without_networks_every_address_is_admitted_and_with_some_only_theirs() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let some = networks(&["10.78.0.0/16", "fd00:78::/64"]);
        for (text, inside) in [
            ("10.78.255.1", true),
            ("::ffff:10.78.0.1", true),
            ("fd00:78::1", true),
            ("10.79.0.1", false),
            ("fd00:79::1", false),
        ] {
            assert_eq!(some.admit(address(text)), inside, "{text}");
            assert!(NodeNetworks::default().admit(address(text)));
        }
    }

    #[test]
    fn a_network_is_known_by_any_of_its_addresses_and_a_text_that_is_none_names_the_form() {
        let network = "10.78.3.4/16".parse::<NodeNetwork>().unwrap();
        assert_eq!(network.to_string(), "10.78.0.0/16");
        for text in ["10.0.0.1", "10.0.0.0/33", "", "edge"] {
            let error = text.parse::<NodeNetwork>().unwrap_err().to_string();
            assert!(error.contains("ADDRESS/LENGTH"), "{error}");
        }
    }
}
