//! What a Yurt-Tunnel server leaves in this machine's netfilter tables, where it was not stopped in order: chains of
//! table `nat` that lead whatever connects to a tunnelled port to a server that is gone.
//!
//! ```text
//!  kernel --chains--> find      whether there are any, in either place where iptables keeps them
//!  iptables-save --> rules      which of them are Yurt-Tunnel's, and what removes just those
//!  programs                     runs iptables for that
//! ```
//! The kernel is asked itself, for a server's container has no iptables. Only removing takes the programs.

mod legacy;
mod nftables;
mod process;
mod programs;
mod rules;

use std::{collections::BTreeSet, fmt, io};

pub use self::{
    process::running_server,
    programs::{Programs, ProgramsError},
    rules::NatRules,
};
use crate::model::Family;

/// The chain that `OUTPUT` jumps to; those of single ports have its name before theirs.
const CHAIN: &str = "TUNNEL-PORT";
const TABLE: &str = "nat";
/// Tables that change while they are read are read again.
const ATTEMPTS: usize = 5;

/// Which of the two kinds of tables iptables works on: a program sees those of its own kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// `iptables-nft`.
    Nftables,
    /// `iptables-legacy`.
    Legacy,
}

/// The chains in one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// Whose tables.
    pub backend: Backend,
    /// Of IPv4 or IPv6.
    pub family: Family,
    /// Their names, in order.
    pub chains: BTreeSet<String>,
}

/// Looks for them in this network namespace. It takes `CAP_NET_ADMIN`.
///
/// # Errors
/// When the kernel does not say what there is.
pub fn find() -> io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for family in Family::ALL {
        for (backend, chains) in [
            (Backend::Nftables, nftables::nat_chains(family)?),
            (Backend::Legacy, legacy::nat_chains(family)?),
        ] {
            let chains: BTreeSet<_> = chains.into_iter().filter(|name| is_own(name)).collect();
            if !chains.is_empty() {
                found.push(Leftover {
                    backend,
                    family,
                    chains,
                });
            }
        }
    }
    Ok(found)
}

/// Whether a chain has one of the names that Yurt-Tunnel gives.
fn is_own(chain: &str) -> bool {
    chain == CHAIN || port_of(chain).is_some()
}

/// The port that a chain is about.
fn port_of(chain: &str) -> Option<u16> {
    let port = chain.strip_prefix(CHAIN)?.strip_prefix('-')?;
    port.parse().ok()
}

impl Leftover {
    /// Whether connects are led through the chains, and not only some of a port left alone.
    pub fn catches(&self) -> bool {
        self.chains.contains(CHAIN)
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chains: Vec<_> = self.chains.iter().map(String::as_str).collect();
        let Self {
            backend, family, ..
        } = self;
        write!(f, "{backend}, {family}: {}", chains.join(", "))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nf_tables",
            Self::Legacy => "legacy",
        })
    }
}
