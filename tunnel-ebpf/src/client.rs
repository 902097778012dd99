//! Who connects: a process of the server's own network namespace, or of another.

use tunnel_ebpf::{Config, clients};

use crate::sockaddr::SockAddr;

/// The network namespace of a client, as the server sees it.
#[derive(Clone, Copy)]
pub(crate) enum Client {
    /// The server's own.
    Own,
    /// Another, by its cookie: a pod's, mostly.
    Other(u64),
}

/// Whether a client may use a port of a node.
pub(crate) enum Permit {
    Given,
    /// Its namespace is not captured at all.
    NotCaptured,
    /// The port is for the server's own namespace.
    Refused,
}

impl Client {
    /// Where the server's namespace is not known, every client counts as of another.
    #[inline(always)]
    pub(crate) fn of(address: &SockAddr<'_>, config: &Config) -> Self {
        let cookie = address.netns();
        if cookie == config.own_netns {
            Self::Own
        } else {
            Self::Other(cookie)
        }
    }

    /// Where the server's namespace is not known, nobody can be kept out: its own processes would be.
    #[inline(always)]
    pub(crate) fn permit(self, clients: u32, config: &Config) -> Permit {
        let is_own = matches!(self, Self::Own) || config.own_netns == 0;
        if !is_own && u32::from(config.clients) == clients::OWN_NAMESPACE {
            Permit::NotCaptured
        } else if !is_own && clients == clients::OWN_NAMESPACE {
            Permit::Refused
        } else {
            Permit::Given
        }
    }
}
