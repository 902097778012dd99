//! Who has an address that several Nodes claim.
//!
//! A Node's addresses are what its kubelet writes, and nobody else has to agree. So who had an
//! address first keeps it, and who comes later gets nothing but an Event. The order is a *place*
//! for each claim of an address; claims that were first heard of together share one.
//!
//! | what happens | what becomes of the place |
//! |---|---|
//! | a Node states the address | behind all others |
//! | it no longer states it | free at once |
//! | the Node is deleted | kept for a day: a Node that is made anew must not come behind whoever waited for that |
//! | its agent, with a certificate that names the address, has no session for a day | kept, but a later one whose agent has a session comes before it |
//! | that agent is back | as before |
//!
//! A Node that has no agent (it is not tunnelled, or under this address it is not) can have been
//! first, and then has the address while it exists; it never takes one over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::model::{AddressHolder, NodeName};

/// An agent that has had no session for this long may be gone for good. Edge nodes are cut off for
/// hours, so a shorter time would give away what they still have.
const ABSENCE: Duration = Duration::from_hours(24);
/// A Node that was deleted and is made anew within this time has the place that it had.
const RETURN: Duration = Duration::from_hours(24);

/// Whether the agent of this node has a session, with a certificate that names this address.
pub(super) type HasSession<'a> = &'a dyn Fn(&NodeName, IpAddr) -> bool;

/// All claims, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// Each list is sorted by node, and never empty.
    by_address: BTreeMap<IpAddr, Vec<Claim>>,
}

/// A Node that states an address now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimant {
    pub(super) node: NodeName,
    pub(super) kind: ClaimKind,
}

/// What makes the address the Node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimKind {
    /// An `InternalIP` of a tunnelled Node: what clients dial.
    Tunnelled,
    /// An `InternalIP` of any other Node.
    Direct,
    /// An `ExternalIP` of a tunnelled Node.
    TunnelledExternal,
    /// An `ExternalIP` of any other Node: where nobody is first, it gives way.
    DirectExternal,
}

/// The claims of one address, as they are kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedClaims {
    address: IpAddr,
    claims: Vec<Claim>,
}

/// One Node's claim of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    node: NodeName,
    place: u32,
    presence: Presence,
    /// Since when there is no such Node, or none that states any address.
    #[serde(default, with = "time::serde::rfc3339::option")]
    deleted: Option<OffsetDateTime>,
}

/// Whether the node's agent is there, with a certificate that names the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Presence {
    /// It is, or nobody else claims the address, so that nobody asks.
    Here,
    /// It was, until then.
    Seen(#[serde(with = "time::serde::rfc3339")] OffsetDateTime),
    /// It has been away for too long, or never came.
    Absent,
}

/// What has become of the addresses that several Nodes claim.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) holders: Vec<(IpAddr, AddressHolder)>,
    /// Who does not get an address that others had before.
    pub(super) refused: Vec<RefusedClaim>,
    /// When time alone may change that.
    pub(super) next_change: Option<OffsetDateTime>,
}

/// Nodes that state an address which others had before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedClaim {
    pub(super) address: IpAddr,
    pub(super) holders: Vec<NodeName>,
    pub(super) refused: Vec<NodeName>,
}

impl Claims {
    pub(super) fn restored(saved: impl IntoIterator<Item = SavedClaims>) -> Self {
        let by_address = saved.into_iter().map(|mut saved| {
            saved.claims.sort_by(|a, b| a.node.cmp(&b.node));
            saved.claims.dedup_by(|a, b| a.node == b.node);
            (saved.address, saved.claims)
        });
        Self {
            by_address: by_address
                .filter(|(_, claims)| !claims.is_empty())
                .collect(),
        }
    }

    /// What the Nodes themselves do not say: of addresses with one claim, the Nodes say all.
    pub(super) fn to_save(&self, also: impl Fn(IpAddr) -> bool) -> Vec<SavedClaims> {
        let worth_it = |address: &IpAddr, claims: &[Claim]| match claims {
            [only] => only.deleted.is_some() || also(*address),
            _ => true,
        };
        let saved = self.by_address.iter();
        saved
            .filter(|(address, claims)| worth_it(address, claims))
            .map(|(address, claims)| SavedClaims {
                address: *address,
                claims: claims.clone(),
            })
            .collect()
    }

    /// Whether this Node claimed the address when claims were settled last.
    pub(super) fn has(&self, address: IpAddr, node: &NodeName) -> bool {
        let claims = self.by_address.get(&address).map_or(&[][..], Vec::as_slice);
        let found = claims.binary_search_by(|claim| claim.node.cmp(node));
        found.is_ok_and(|at| claims[at].deleted.is_none())
    }

    /// Whether any Node claimed one of these addresses then.
    pub(super) fn has_any_in(&self, addresses: RangeInclusive<IpAddr>) -> bool {
        let mut claims = self
            .by_address
            .range(addresses)
            .flat_map(|(_, claims)| claims);
        claims.any(|claim| claim.deleted.is_none())
    }

    /// Takes what all Nodes state now, each address's claimants sorted by node, and says who has
    /// what. `speaks` says whether a Node states any address: one that was just made does not yet.
    pub(super) fn settle(
        &mut self,
        stated: &BTreeMap<IpAddr, Vec<Claimant>>,
        speaks: impl Fn(&NodeName) -> bool,
        has_session: HasSession<'_>,
        now: OffsetDateTime,
    ) -> Settled {
        self.by_address.retain(|address, claims| {
            let claimants = stated.get(address).map_or(&[][..], Vec::as_slice);
            claims.retain_mut(|claim| claim.stays(kind_of(claimants, &claim.node), &speaks, now));
            !claims.is_empty()
        });
        let mut settled = Settled::default();
        for (address, claimants) in stated {
            let claims = self.by_address.entry(*address).or_default();
            join(claims, claimants);
            let is_shared = claimants.len() > 1;
            for claim in claims.iter_mut().filter(|claim| claim.deleted.is_none()) {
                claim.presence = if is_shared {
                    claim.presence.next(has_session(&claim.node, *address), now)
                } else {
                    Presence::Here
                };
            }
            if is_shared {
                Contest::new(claims, claimants).decide(*address, &mut settled);
            }
        }
        let changes = self.by_address.values().flatten();
        settled.next_change = changes.filter_map(Claim::changes_at).min();
        settled
    }
}

impl Claim {
    /// Whether it is still worth knowing.
    fn stays(
        &mut self,
        stated: Option<ClaimKind>,
        speaks: impl Fn(&NodeName) -> bool,
        now: OffsetDateTime,
    ) -> bool {
        if stated.is_some() {
            self.deleted = None;
            return true;
        }
        !speaks(&self.node) && now < *self.deleted.get_or_insert(now) + RETURN
    }

    fn changes_at(&self) -> Option<OffsetDateTime> {
        match (self.deleted, self.presence) {
            (Some(deleted), _) => Some(deleted + RETURN),
            (None, Presence::Seen(at)) => Some(at + ABSENCE),
            (None, Presence::Here | Presence::Absent) => None,
        }
    }
}

impl Presence {
    fn next(self, has_session: bool, now: OffsetDateTime) -> Self {
        match self {
            _ if has_session => Self::Here,
            Self::Here => Self::Seen(now),
            Self::Seen(at) if now >= at + ABSENCE => Self::Absent,
            Self::Seen(_) | Self::Absent => self,
        }
    }
}

/// Adds those that are new, behind all others: who comes to an address that is another's has to
/// show itself first.
fn join(claims: &mut Vec<Claim>, claimants: &[Claimant]) {
    let is_known = |node| {
        claims
            .binary_search_by(|claim| claim.node.cmp(node))
            .is_ok()
    };
    let new: Vec<_> = claimants
        .iter()
        .filter(|claimant| !is_known(&claimant.node))
        .collect();
    if new.is_empty() {
        return;
    }
    let place = claims.iter().map(|claim| claim.place).max();
    let is_held = claims.iter().any(|claim| claim.deleted.is_none());
    claims.extend(new.into_iter().map(|claimant| Claim {
        node: claimant.node.clone(),
        place: place.map_or(0, |place| place.saturating_add(1)),
        presence: if is_held {
            Presence::Absent
        } else {
            Presence::Here
        },
        deleted: None,
    }));
    claims.sort_by(|a, b| a.node.cmp(&b.node));
}

fn kind_of(claimants: &[Claimant], node: &NodeName) -> Option<ClaimKind> {
    let found = claimants.binary_search_by(|claimant| claimant.node.cmp(node));
    found.ok().map(|at| claimants[at].kind)
}

/// The claims of Nodes that are there on one address.
struct Contest<'a> {
    claims: Vec<(&'a Claim, ClaimKind)>,
}

impl<'a> Contest<'a> {
    fn new(claims: &'a [Claim], claimants: &[Claimant]) -> Self {
        let there = claims.iter().filter_map(|claim| {
            let kind = kind_of(claimants, &claim.node)?;
            Some((claim, kind))
        });
        Self {
            claims: there.collect(),
        }
    }

    fn decide(&self, address: IpAddr, settled: &mut Settled) {
        let is_dialled = |(_, kind): &(&Claim, ClaimKind)| *kind == ClaimKind::Tunnelled;
        if !self.claims.iter().any(is_dialled) {
            return;
        }
        let winners = self.winners();
        let tunnelled = winners.iter().any(is_dialled);
        let refused = || {
            let winners: BTreeSet<_> = winners.iter().map(|(claim, _)| &claim.node).collect();
            let losers = self.claims.iter();
            losers
                .filter(|(claim, kind)| kind.wants_the_address() && !winners.contains(&claim.node))
                .map(|(claim, _)| claim.node.clone())
                .collect::<Vec<_>>()
        };
        let names = || winners.iter().map(|(claim, _)| claim.node.clone());
        let holder = match winners[..] {
            [(only, _)] if tunnelled => AddressHolder::Node(only.node.clone()),
            _ if tunnelled => AddressHolder::Contested(names().collect()),
            _ => AddressHolder::Outside,
        };
        let refused = refused();
        if !refused.is_empty() {
            settled.refused.push(RefusedClaim {
                address,
                holders: names().collect(),
                refused,
            });
        }
        settled.holders.push((address, holder));
    }

    /// The first of those that count, several where they came together.
    fn winners(&self) -> Vec<(&'a Claim, ClaimKind)> {
        let place = |(claim, _): &(&Claim, ClaimKind)| claim.place;
        let first = self.claims.iter().map(place).min();
        let counts = |entry: &(&Claim, ClaimKind)| match entry.1 {
            ClaimKind::Tunnelled => entry.0.presence != Presence::Absent,
            ClaimKind::Direct | ClaimKind::TunnelledExternal | ClaimKind::DirectExternal => {
                Some(entry.0.place) == first
            }
        };
        let counting = self.claims.iter().filter(|entry| counts(entry));
        let best = counting.clone().map(place).min();
        let winners = match best {
            Some(best) => counting
                .filter(|entry| entry.0.place == best)
                .copied()
                .collect(),
            // None of them has ever shown itself, or not for long.
            None => self
                .claims
                .iter()
                .filter(|entry| Some(entry.0.place) == first)
                .copied()
                .collect(),
        };
        without_those_that_give_way(winners)
    }
}

impl ClaimKind {
    /// Whether a Node that does not get the address misses something.
    fn wants_the_address(self) -> bool {
        match self {
            Self::Tunnelled | Self::Direct => true,
            // Behind a NAT many nodes have the same.
            Self::TunnelledExternal | Self::DirectExternal => false,
        }
    }
}

fn without_those_that_give_way(mut winners: Vec<(&Claim, ClaimKind)>) -> Vec<(&Claim, ClaimKind)> {
    let stands = |entry: &(&Claim, ClaimKind)| entry.1 != ClaimKind::DirectExternal;
    if winners.iter().any(stands) {
        winners.retain(stands);
    }
    winners
}

#[cfg(test)]
mod tests;
