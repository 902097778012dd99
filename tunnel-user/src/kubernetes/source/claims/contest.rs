//! Which of several Nodes has the address that they claim.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Claim, ClaimKind, Claimant, Presence, RefusedClaim, Settled, kind_of};
use crate::model::AddressHolder;

/// The claims of Nodes that are there on one address.
pub(super) struct Contest<'a> {
    claims: Vec<(&'a Claim, ClaimKind)>,
}

impl<'a> Contest<'a> {
    pub(super) fn new(claims: &'a [Claim], claimants: &[Claimant]) -> Self {
        let there = claims.iter().filter_map(|claim| {
            let kind = kind_of(claimants, &claim.node)?;
            Some((claim, kind))
        });
        Self {
            claims: there.collect(),
        }
    }

    pub(super) fn decide(&self, address: IpAddr, settled: &mut Settled) {
        let is_dialled = |(_, kind): &(&Claim, ClaimKind)| *kind == ClaimKind::Tunnelled;
        if !self.claims.iter().any(is_dialled) {
            return;
        }
        let winners = self.winners();
        let tunnelled = winners.iter().any(is_dialled);
        // Behind a NAT many nodes have the same ExternalIP: they miss nothing.
        let refused = || {
            let winners: BTreeSet<_> = winners.iter().map(|(claim, _)| &claim.node).collect();
            let losers = self.claims.iter();
            losers
                .filter(|(claim, kind)| kind.is_internal() && !winners.contains(&claim.node))
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

fn without_those_that_give_way(mut winners: Vec<(&Claim, ClaimKind)>) -> Vec<(&Claim, ClaimKind)> {
    let stands = |entry: &(&Claim, ClaimKind)| entry.1 != ClaimKind::DirectExternal;
    if winners.iter().any(stands) {
        winners.retain(stands);
    }
    winners
}
