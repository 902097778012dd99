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

mod contest;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    time::Duration,
};

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use self::contest::Contest;
use crate::model::{AddressHolder, NodeName};

/// An agent that has had no session for this long may be gone for good. Edge nodes are cut off for
/// hours, so a shorter time would give away what they still have.
const ABSENCE: Duration = Duration::from_hours(24);
/// A Node that was deleted and is made anew within this time has the place that it had.
const RETURN: Duration = Duration::from_hours(24);

/// Whether the agent of this node has a session, with a certificate that names this address.
pub(super) type HasSession<'a> = &'a dyn Fn(&NodeName, IpAddr) -> bool;

/// What Nodes state, address by address, each address's claimants sorted by node.
pub(super) type Stated = BTreeMap<IpAddr, Vec<Claimant>>;

/// All claims, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// Each list is sorted by node, and never empty.
    by_address: BTreeMap<IpAddr, Vec<Claim>>,
    /// Those that time or sessions may settle otherwise, although no Node says anything else.
    open: BTreeSet<IpAddr>,
    /// What is worth keeping on disk.
    kept: OrdMap<IpAddr, SavedClaims>,
}

/// What claims are settled by.
pub(super) struct Evidence<'a> {
    pub(super) stated: &'a Stated,
    /// Whether a Node states any address: one that was just made does not yet.
    pub(super) speaks: &'a dyn Fn(&NodeName) -> bool,
    pub(super) has_session: HasSession<'a>,
    /// Whether an address is in a range of pods: who had it first is kept on disk, though only one claims it.
    pub(super) is_in_pods: &'a dyn Fn(IpAddr) -> bool,
}

/// A Node that states an address now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimant {
    pub(super) node: NodeName,
    pub(super) kind: ClaimKind,
}

/// What makes the address the Node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl ClaimKind {
    /// Whether clients know the Node by the address.
    fn is_internal(self) -> bool {
        matches!(self, Self::Tunnelled | Self::Direct)
    }
}

/// The claims of one address, as they are kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedClaims {
    pub(super) address: IpAddr,
    claims: Vec<Claim>,
}

/// One Node's claim of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    node: NodeName,
    place: u32,
    presence: Presence,
    /// As what. Only a captured address is the Node's against a range of pods: no other is judged, so that a kubelet
    /// could prepare what it is to be refused.
    #[serde(default = "captured")]
    kind: ClaimKind,
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
    /// Every address that was looked at.
    pub(super) looked_at: BTreeSet<IpAddr>,
    /// Those of them that a Node has now as an `InternalIP` and none had before, or the reverse.
    pub(super) taken_or_free: Vec<IpAddr>,
}

/// Nodes that state an address which others had before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedClaim {
    pub(super) address: IpAddr,
    pub(super) holders: Vec<NodeName>,
    pub(super) refused: Vec<NodeName>,
}

impl Claims {
    pub(super) fn restored(saved: OrdMap<IpAddr, SavedClaims>) -> Self {
        let by_address = saved.values().cloned().map(|mut saved| {
            saved.claims.sort_by(|a, b| a.node.cmp(&b.node));
            saved.claims.dedup_by(|a, b| a.node == b.node);
            (saved.address, saved.claims)
        });
        let by_address: BTreeMap<_, _> = by_address
            .filter(|(_, claims)| !claims.is_empty())
            .collect();
        Self {
            open: by_address.keys().copied().collect(),
            by_address,
            kept: saved,
        }
    }

    /// What the Nodes themselves do not say: of addresses with one claim, the Nodes say all.
    pub(super) fn to_save(&self) -> OrdMap<IpAddr, SavedClaims> {
        self.kept.clone()
    }

    /// Whether this Node claimed the address as one to be captured when claims were settled last.
    pub(super) fn has(&self, address: IpAddr, node: &NodeName) -> bool {
        let claims = self.of(address);
        let found = claims.binary_search_by(|claim| claim.node.cmp(node));
        found.is_ok_and(|at| {
            claims[at].takes_the_address() && claims[at].kind == ClaimKind::Tunnelled
        })
    }

    /// Whether any Node claimed one of these addresses as an `InternalIP` then.
    pub(super) fn has_any_in(&self, addresses: RangeInclusive<IpAddr>) -> bool {
        let mut claims = self.by_address.range(addresses);
        claims.any(|(_, claims)| is_taken(claims))
    }

    /// Every address in the range that is claimed in any way.
    pub(super) fn claimed_in(
        &self,
        addresses: RangeInclusive<IpAddr>,
    ) -> impl Iterator<Item = IpAddr> {
        self.by_address
            .range(addresses)
            .map(|(address, _)| *address)
    }

    /// Says who has what of these addresses, of which Nodes state something else than before, and of those that are
    /// open; of all others that stays as it was.
    pub(super) fn settle(
        &mut self,
        changed: &BTreeSet<IpAddr>,
        evidence: &Evidence<'_>,
        now: OffsetDateTime,
    ) -> Settled {
        let looked_at: BTreeSet<IpAddr> = changed.union(&self.open).copied().collect();
        let mut settled = Settled::default();
        for address in &looked_at {
            self.settle_one(*address, evidence, now, &mut settled);
        }
        settled.looked_at = looked_at;
        let open = self.open.iter().flat_map(|address| self.of(*address));
        settled.next_change = open.filter_map(Claim::changes_at).min();
        settled
    }

    fn settle_one(
        &mut self,
        address: IpAddr,
        evidence: &Evidence<'_>,
        now: OffsetDateTime,
        settled: &mut Settled,
    ) {
        let claimants = evidence.stated.get(&address).map_or(&[][..], Vec::as_slice);
        let mut claims = self.by_address.remove(&address).unwrap_or_default();
        let was_taken = is_taken(&claims);
        claims
            .retain_mut(|claim| claim.stays(kind_of(claimants, &claim.node), evidence.speaks, now));
        join(&mut claims, claimants);
        let is_shared = claimants.len() > 1;
        for claim in claims.iter_mut().filter(|claim| claim.deleted.is_none()) {
            claim.presence = if is_shared {
                let has_session = (evidence.has_session)(&claim.node, address);
                claim.presence.next(has_session, now)
            } else {
                Presence::Here
            };
        }
        if is_shared {
            Contest::new(&claims, claimants).decide(address, settled);
        }
        if was_taken != is_taken(&claims) {
            settled.taken_or_free.push(address);
        }
        self.put(address, claims, (evidence.is_in_pods)(address));
    }

    fn put(&mut self, address: IpAddr, claims: Vec<Claim>, is_in_pods: bool) {
        let (is_open, is_kept) = match &*claims {
            [] => (false, false),
            [only] => (only.deleted.is_some(), only.deleted.is_some() || is_in_pods),
            _ => (true, true),
        };
        if is_open {
            self.open.insert(address);
        } else {
            self.open.remove(&address);
        }
        if is_kept {
            let claims = claims.clone();
            self.kept.insert(address, SavedClaims { address, claims });
        } else {
            self.kept.remove(&address);
        }
        if !claims.is_empty() {
            self.by_address.insert(address, claims);
        }
    }

    fn of(&self, address: IpAddr) -> &[Claim] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// What follows from the Nodes is to be found anew for every address.
    #[cfg(test)]
    pub(super) fn open_all(&mut self) {
        self.open = self.by_address.keys().copied().collect();
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
        if let Some(kind) = stated {
            (self.deleted, self.kind) = (None, kind);
            return true;
        }
        !speaks(&self.node) && now < *self.deleted.get_or_insert(now) + RETURN
    }

    fn takes_the_address(&self) -> bool {
        self.deleted.is_none() && self.kind.is_internal()
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
        kind: claimant.kind,
        deleted: None,
    }));
    claims.sort_by(|a, b| a.node.cmp(&b.node));
}

/// What a claim is that was saved before this was kept.
fn captured() -> ClaimKind {
    ClaimKind::Tunnelled
}

fn is_taken(claims: &[Claim]) -> bool {
    claims.iter().any(Claim::takes_the_address)
}

fn kind_of(claimants: &[Claimant], node: &NodeName) -> Option<ClaimKind> {
    let found = claimants.binary_search_by(|claimant| claimant.node.cmp(node));
    found.ok().map(|at| claimants[at].kind)
}

#[cfg(test)]
mod tests;
