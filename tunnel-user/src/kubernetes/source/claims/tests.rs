use std::collections::BTreeSet;

use time::macros::datetime;

use super::{ClaimKind::*, *};

const START: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
const HOUR: Duration = Duration::from_hours(1);

/// One address, and who states it.
#[derive(Default)]
struct Case {
    claims: Claims,
    stated: BTreeMap<NodeName, ClaimKind>,
    /// Nodes that state another address.
    elsewhere: BTreeSet<NodeName>,
    is_in_pods: bool,
    sessions: BTreeSet<NodeName>,
}

fn name(node: &str) -> NodeName {
    node.parse().unwrap()
}

fn address() -> IpAddr {
    "10.0.0.1".parse().unwrap()
}

impl Case {
    fn of(claimants: &[(&str, ClaimKind)]) -> Self {
        let mut case = Self::default();
        for (node, kind) in claimants {
            case.state(node, *kind);
        }
        case
    }

    fn state(&mut self, node: &str, kind: ClaimKind) {
        self.elsewhere.remove(&name(node));
        self.stated.insert(name(node), kind);
    }

    fn give_up(&mut self, node: &str) {
        self.stated.remove(&name(node));
        self.elsewhere.insert(name(node));
    }

    fn delete(&mut self, node: &str) {
        self.stated.remove(&name(node));
        self.sessions.remove(&name(node));
    }

    fn settle(&mut self, now: OffsetDateTime) -> Settled {
        let claimants = self.stated.iter().map(|(node, kind)| Claimant {
            node: node.clone(),
            kind: *kind,
        });
        let claimants: Vec<_> = claimants.collect();
        let mut stated = BTreeMap::new();
        if !claimants.is_empty() {
            stated.insert(address(), claimants);
        }
        let speaks =
            |node: &NodeName| self.stated.contains_key(node) || self.elsewhere.contains(node);
        let has_session = |node: &NodeName, _| self.sessions.contains(node);
        let evidence = Evidence {
            stated: &stated,
            speaks: &speaks,
            has_session: &has_session,
            is_in_pods: &|_| self.is_in_pods,
        };
        self.claims.settle(&[address()].into(), &evidence, now)
    }

    /// Who has the address, and who misses it; "" where nobody else claims it.
    fn holder(&mut self, now: OffsetDateTime) -> (String, Vec<String>) {
        let settled = self.settle(now);
        let holder = match settled.holders.first() {
            None => String::new(),
            Some((_, AddressHolder::Node(node))) => node.to_string(),
            Some((_, AddressHolder::Outside)) => "outside".to_owned(),
            Some((_, AddressHolder::Contested(nodes))) => {
                let nodes: Vec<_> = nodes.iter().map(NodeName::as_str).collect();
                format!("contested by {}", nodes.join(" "))
            }
        };
        let refused = settled.refused.into_iter().flat_map(|claim| claim.refused);
        (holder, refused.map(|node| node.to_string()).collect())
    }

    fn restart(&mut self) {
        let saved = self.claims.to_save();
        let saved = saved.values().map(|claims| {
            let text = serde_json::to_vec(claims).unwrap();
            (claims.address, serde_json::from_slice(&text).unwrap())
        });
        self.claims = Claims::restored(saved.collect());
    }
}

fn held(holder: &str, refused: &[&str]) -> (String, Vec<String>) {
    let refused = refused.iter().map(ToString::to_string);
    (holder.to_owned(), refused.collect())
}

/// What kind of claim comes to the address of a tunnelled node, and who gets an Event of it.
#[test]
fn who_was_first_keeps_the_address_against_whatever_comes() {
    for (kind, refused) in [
        (Tunnelled, &["z"][..]),
        (Direct, &["z"]),
        (TunnelledExternal, &[]),
        (DirectExternal, &[]),
    ] {
        let mut case = Case::of(&[("e1", Tunnelled)]);
        assert_eq!(case.holder(START), held("", &[]));
        case.state("z", kind);
        for with_session in [false, true] {
            if with_session {
                case.sessions.insert(name("z"));
            }
            assert_eq!(case.holder(START + HOUR), held("e1", refused), "{kind:?}");
        }
        case.restart();
        assert_eq!(
            case.holder(START + 2 * HOUR),
            held("e1", refused),
            "{kind:?}"
        );
    }
}

#[test]
fn a_node_that_is_not_tunnelled_by_its_address_keeps_it_from_those_that_come_later() {
    for kind in [Direct, TunnelledExternal, DirectExternal] {
        let mut case = Case::of(&[("c1", kind)]);
        case.holder(START);
        case.state("e1", Tunnelled);
        case.sessions.insert(name("e1"));
        assert_eq!(case.holder(START), held("outside", &["e1"]), "{kind:?}");
        // It has no agent that could be away.
        let later = START + 3 * ABSENCE;
        assert_eq!(case.holder(later), held("outside", &["e1"]), "{kind:?}");
        case.delete("c1");
        assert_eq!(case.holder(later), held("", &[]), "{kind:?}");
    }
}

#[test]
fn of_those_that_are_heard_of_together_none_is_first() {
    for (other, expected) in [
        (Tunnelled, "contested by e1 z"),
        (Direct, "contested by e1 z"),
        (TunnelledExternal, "contested by e1 z"),
        (DirectExternal, "e1"),
    ] {
        let mut case = Case::of(&[("e1", Tunnelled), ("z", other)]);
        assert_eq!(case.holder(START).0, expected, "{other:?}");
        case.sessions.insert(name("e1"));
        // Who is quick with a session must not win for that.
        assert_eq!(case.holder(START + HOUR).0, expected, "{other:?}");
        case.restart();
        assert_eq!(case.holder(START + HOUR).0, expected, "{other:?}");
    }
    let mut shared = Case::of(&[("e1", TunnelledExternal), ("e2", TunnelledExternal)]);
    assert_eq!(shared.holder(START), held("", &[]), "as behind a NAT");
}

#[test]
fn of_two_that_came_together_the_one_whose_agent_is_there_has_it_after_a_day() {
    let mut case = Case::of(&[("e1", Tunnelled), ("e2", Tunnelled)]);
    case.sessions.insert(name("e2"));
    case.holder(START);
    assert_eq!(case.holder(START + ABSENCE), held("e2", &["e1"]));
    case.sessions.insert(name("e1"));
    assert_eq!(case.holder(START + ABSENCE).0, "contested by e1 e2");
}

#[test]
fn a_stale_node_blocks_its_successor_for_a_day_and_is_first_again_when_it_is_back() {
    let mut case = Case::of(&[("old", Tunnelled)]);
    case.sessions.insert(name("old"));
    case.holder(START);
    case.state("new", Tunnelled);
    case.sessions.insert(name("new"));
    assert_eq!(case.holder(START), held("old", &["new"]));
    case.sessions.remove(&name("old"));
    let gone = START + HOUR;
    let settled = case.settle(gone);
    assert_eq!(settled.next_change, Some(gone + ABSENCE));
    let before = gone + ABSENCE - Duration::from_secs(1);
    assert_eq!(case.holder(before), held("old", &["new"]));
    assert_eq!(case.holder(gone + ABSENCE), held("new", &["old"]));
    case.restart();
    assert_eq!(case.holder(gone + ABSENCE + HOUR), held("new", &["old"]));
    // A moment without a session changes nothing.
    case.sessions.clear();
    assert_eq!(case.holder(gone + ABSENCE + HOUR), held("new", &["old"]));
    case.sessions.insert(name("old"));
    assert_eq!(case.holder(gone + ABSENCE + HOUR), held("old", &["new"]));
}

#[test]
fn who_has_never_shown_itself_takes_nothing_over() {
    for kind in [Tunnelled, Direct, TunnelledExternal, DirectExternal] {
        let mut case = Case::of(&[("e1", Tunnelled)]);
        case.holder(START);
        case.state("z", kind);
        case.holder(START);
        let later = START + 2 * ABSENCE;
        assert_eq!(case.holder(later).0, "e1", "{kind:?}");
    }
}

#[test]
fn an_address_that_is_given_up_is_the_next_ones_at_once() {
    let mut case = Case::of(&[("e1", Tunnelled)]);
    case.holder(START);
    case.state("e2", Tunnelled);
    assert_eq!(case.holder(START), held("e1", &["e2"]));
    case.give_up("e1");
    assert_eq!(case.holder(START), held("", &[]));
    case.state("e1", Tunnelled);
    assert_eq!(case.holder(START), held("e2", &["e1"]));
}

#[test]
fn a_node_that_is_deleted_leaves_its_address_at_once_and_is_first_again_when_it_is_made_anew() {
    let mut case = Case::of(&[("e1", Tunnelled)]);
    case.holder(START);
    case.state("z", Tunnelled);
    case.holder(START);
    case.delete("e1");
    assert_eq!(case.holder(START), held("", &[]), "it is the other's");
    case.restart();
    let anew = START + 2 * HOUR;
    case.holder(anew);
    case.state("e1", Tunnelled);
    assert_eq!(case.holder(anew), held("e1", &["z"]));

    case.delete("e1");
    case.holder(anew);
    assert_eq!(case.settle(anew + RETURN).next_change, None, "forgotten");
    case.state("e1", Tunnelled);
    assert_eq!(case.holder(anew + RETURN), held("z", &["e1"]));
}

#[test]
fn a_node_that_is_made_anew_need_not_say_its_addresses_at_once() {
    let mut case = Case::of(&[("e1", Tunnelled)]);
    case.holder(START);
    // Deleted, and made again without a status.
    case.delete("e1");
    case.state("z", Tunnelled);
    assert_eq!(case.holder(START), held("", &[]));
    case.state("e1", Tunnelled);
    assert_eq!(case.holder(START), held("e1", &["z"]));
}

#[test]
fn only_what_nodes_do_not_say_themselves_is_saved() {
    let mut case = Case::of(&[("e1", Tunnelled)]);
    case.holder(START);
    assert!(case.claims.to_save().is_empty());
    case.is_in_pods = true;
    case.holder(START);
    assert_eq!(case.claims.to_save().len(), 1);
    case.is_in_pods = false;
    assert!(case.claims.has(address(), &name("e1")));
    case.state("e2", Tunnelled);
    case.holder(START);
    assert_eq!(case.claims.to_save().len(), 1);
    case.delete("e1");
    case.delete("e2");
    case.holder(START);
    assert!(!case.claims.has(address(), &name("e1")));
    let within = address()..=address();
    assert!(!case.claims.has_any_in(within));
}
