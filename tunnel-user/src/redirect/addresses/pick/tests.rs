use rtnetlink::packet_route::link::InfoKind;

use super::{
    super::testing::{link, own, route},
    *,
};

const LOOPBACK: u32 = 1;
const UPLINK: u32 = 2;
const SECOND: u32 = 3;
const BRIDGE: u32 = 4;

/// A machine with two network cards and a bridge for containers.
fn machine(addresses: &[OwnAddress], routes: &[Route]) -> Candidates {
    let links = [
        link(LOOPBACK, None),
        link(UPLINK, None),
        link(SECOND, None),
        link(BRIDGE, Some(InfoKind::Bridge)),
    ];
    Candidates::new(addresses, &links, routes)
}

fn v4(candidates: &Candidates, in_use: Option<&str>) -> String {
    let in_use = in_use.map(|ip| ip.parse().unwrap());
    candidates
        .choose(Family::V4, in_use)
        .unwrap()
        .ip
        .to_string()
}

fn default(metric: u32, link: u32) -> Route {
    Route {
        metric,
        ..route(None, Some("192.0.2.1"), link)
    }
}

#[test]
fn the_default_routes_interface_wins_then_what_leads_out_then_any_then_loopback() {
    let addresses = [
        own("127.0.0.1", LOOPBACK),
        own("172.17.0.1", BRIDGE),
        own("198.51.100.1", SECOND),
        own("192.0.2.10", UPLINK),
        own("2001:db8::1", UPLINK),
    ];
    let all = |routes: &[Route]| v4(&machine(&addresses, routes), None);
    assert_eq!(all(&[default(0, UPLINK)]), "192.0.2.10");
    let two = [default(200, UPLINK), default(100, SECOND)];
    assert_eq!(all(&two), "198.51.100.1", "the least metric");
    let halves = [
        route(Some("0.0.0.0/1"), Some("192.0.2.1"), UPLINK),
        route(Some("128.0.0.0/1"), Some("192.0.2.1"), UPLINK),
    ];
    assert_eq!(all(&halves), "192.0.2.10");
    assert_eq!(all(&[]), "198.51.100.1", "hardware");
    assert_eq!(v4(&machine(&addresses[..2], &[]), None), "172.17.0.1");
    assert_eq!(v4(&machine(&addresses[..1], &[]), None), "127.0.0.1");
    let v6_only = machine(&addresses[4..], &[]);
    assert_eq!(v6_only.choose(Family::V4, None), None);
}

#[test]
fn policy_routes_and_routes_of_the_other_family_say_nothing() {
    let addresses = [own("198.51.100.1", SECOND), own("192.0.2.10", UPLINK)];
    let policy = Route {
        is_main: false,
        ..default(0, SECOND)
    };
    let six = route(None, Some("fe80::1"), SECOND);
    let candidates = machine(&addresses, &[policy, six, default(0, UPLINK)]);
    assert_eq!(v4(&candidates, None), "192.0.2.10");
}

#[test]
fn an_address_known_to_others_counts_on_loopback_but_not_one_of_ours() {
    let router = OwnAddress {
        is_host: true,
        ..own("192.0.2.77", LOOPBACK)
    };
    let addresses = [
        own("127.0.0.1", LOOPBACK),
        router,
        own("172.17.0.1", BRIDGE),
    ];
    assert_eq!(v4(&machine(&addresses, &[]), None), "192.0.2.77");
    let ours = OwnAddress {
        ours: true,
        ..router
    };
    let addresses = [own("127.0.0.1", LOOPBACK), ours];
    assert_eq!(v4(&machine(&addresses, &[]), None), "127.0.0.1");
}

#[test]
fn addresses_that_come_or_go_are_passed_over() {
    let other = own("192.0.2.11", UPLINK);
    let first = own("192.0.2.10", UPLINK);
    let blemishes = [
        OwnAddress {
            use_to_others: UseToOthers::None,
            ..first
        },
        OwnAddress {
            use_to_others: UseToOthers::Deprecated,
            ..first
        },
        OwnAddress {
            is_host: true,
            ..first
        },
        OwnAddress {
            is_secondary: true,
            ..first
        },
    ];
    for blemished in blemishes {
        let candidates = machine(&[blemished, other], &[default(0, UPLINK)]);
        assert_eq!(v4(&candidates, None), "192.0.2.11", "{blemished:?}");
    }
    let temporary = OwnAddress {
        is_secondary: true,
        ..own("2001:db8::aaaa", UPLINK)
    };
    let candidates = machine(&[temporary, own("2001:db8::1", UPLINK)], &[]);
    let chosen = candidates.choose(Family::V6, None).unwrap();
    assert_eq!(chosen.ip.to_string(), "2001:db8::1");
    let alone = machine(&[temporary], &[]);
    let chosen = alone.choose(Family::V6, None).unwrap();
    assert!(chosen.to_string().contains("temporary"), "{chosen}");
}

#[test]
fn what_is_in_use_stays_until_there_is_a_better_one() {
    let virtual_one = OwnAddress {
        is_host: true,
        ..own("192.0.2.100", UPLINK)
    };
    let (first, second) = (own("192.0.2.10", UPLINK), own("192.0.2.11", UPLINK));
    let default = [default(0, UPLINK)];
    let both = machine(&[first, second], &default);
    assert_eq!(v4(&both, Some("192.0.2.11")), "192.0.2.11");
    let late = machine(&[virtual_one, first], &default);
    assert_eq!(v4(&late, Some("192.0.2.100")), "192.0.2.10");
    assert_eq!(
        v4(&machine(&[second], &default), Some("192.0.2.10")),
        "192.0.2.11"
    );
}
