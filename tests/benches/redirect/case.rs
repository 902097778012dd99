//! What is compared.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::ruleset::Rules;

/// One way from a `connect()` to the server.
pub(crate) struct Case {
    /// As in the table.
    pub(crate) name: &'static str,
    /// What is in force in its network.
    pub(crate) rules: Rules,
    /// What the client dials.
    pub(crate) dial: SocketAddrV4,
    /// What the server is to find that it meant: the same, or an endpoint of it.
    pub(crate) meant: SocketAddrV4,
    /// Where the server listens that accepts it.
    pub(crate) listen: SocketAddrV4,
    /// Whether transfers over the open connection are measured too.
    pub(crate) stream: bool,
    /// The ratio that the prototype of this redirect measured, where it did.
    pub(crate) prototype: &'static str,
}

/// The address of every server, on the loopback interface of its network.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where redirected connects arrive.
pub(crate) const REDIRECTED_TO: SocketAddrV4 = SocketAddrV4::new(SERVER, 20_250);
/// The port that is tunnelled.
pub(crate) const PORT: u16 = 10_250;
/// The first node's address.
pub(crate) const NODES: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 0);
/// A node that every table holds, however small.
pub(crate) const NODE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 200, 0, 5), PORT);
const OTHER_PORT: SocketAddrV4 = SocketAddrV4::new(SERVER, 20_251);
/// A port that no Service has.
const NO_SERVICES_PORT: SocketAddrV4 = SocketAddrV4::new(SERVER, 20_252);
/// The first Service; the others follow.
pub(crate) const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 0), 443);
/// The port of one Service more.
pub(crate) const SERVICES_PORT: u16 = OTHER_PORT.port();
const OTHER_ADDRESS: SocketAddrV4 = SocketAddrV4::new(SERVER, PORT);

pub(crate) const CASES: &[Case] = &[
    direct("direct", Rules::Conntrack, true, "1"),
    direct("direct, no netfilter", Rules::Nothing, false, "0.74"),
    captured("iptables-legacy, 10 rules", Rules::Legacy(10), true, "1.13"),
    captured(
        "iptables-legacy, 1000 rules",
        Rules::Legacy(1000),
        false,
        "1.39",
    ),
    captured(
        "iptables-legacy, 5000 rules",
        Rules::Legacy(5000),
        false,
        "2.64",
    ),
    captured("iptables-nft, 10 rules", Rules::Nft(10), false, "1.15"),
    captured("iptables-nft, 1000 rules", Rules::Nft(1000), false, "2.09"),
    captured("iptables-nft, 5000 rules", Rules::Nft(5000), false, "5.86"),
    captured("nft set, 10 nodes", Rules::NftSet(10), true, "1.13"),
    captured("nft set, 1000 nodes", Rules::NftSet(1000), false, "1.13"),
    captured(
        "nft set, 100000 nodes",
        Rules::NftSet(100_000),
        false,
        "1.13",
    ),
    captured("culvert, 10 nodes", Rules::Culvert(10), false, "1.14"),
    captured("culvert, 1000 nodes", Rules::Culvert(1000), true, "1.14"),
    captured(
        "culvert, 100000 nodes",
        Rules::Culvert(100_000),
        false,
        "1.13",
    ),
    Case {
        dial: SERVICE,
        ..captured(
            "culvert, by one of 1000 Services",
            Rules::Services(1000),
            false,
            "",
        )
    },
    missed("culvert, not ours: other port", OTHER_PORT),
    missed("culvert, not ours: other address", OTHER_ADDRESS),
    Case {
        rules: Rules::Services(1000),
        ..missed(
            "1000 Services, not ours: no Service's port",
            NO_SERVICES_PORT,
        )
    },
    Case {
        rules: Rules::Services(1000),
        ..missed("1000 Services, not ours: a Service's port", OTHER_PORT)
    },
];

const fn direct(name: &'static str, rules: Rules, stream: bool, prototype: &'static str) -> Case {
    Case {
        name,
        rules,
        dial: REDIRECTED_TO,
        meant: REDIRECTED_TO,
        listen: REDIRECTED_TO,
        stream,
        prototype,
    }
}

const fn captured(name: &'static str, rules: Rules, stream: bool, prototype: &'static str) -> Case {
    Case {
        name,
        rules,
        dial: NODE,
        meant: NODE,
        listen: REDIRECTED_TO,
        stream,
        prototype,
    }
}

/// A connect that passes all programs and is none of theirs.
const fn missed(name: &'static str, dial: SocketAddrV4) -> Case {
    Case {
        name,
        rules: Rules::Culvert(100_000),
        dial,
        meant: dial,
        listen: dial,
        stream: false,
        prototype: "",
    }
}

impl Case {
    /// What all others are compared with.
    pub(crate) fn is_baseline(&self) -> bool {
        self.name == CASES[0].name
    }

    /// Whether the connect is let pass by programs that are attached.
    pub(crate) fn is_miss(&self) -> bool {
        matches!(self.rules, Rules::Culvert(_) | Rules::Services(_)) && self.dial == self.listen
    }
}
