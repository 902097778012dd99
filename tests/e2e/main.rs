//! The whole path: client, eBPF redirect, server, tunnel, agent, target. Every program is the real
//! binary; every packet stays in namespaces that the harness made. They need root.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics where it stands"
)]

mod agents;
mod arrival;
mod crowd;
mod descriptors;
mod dialling;
mod forgotten;
mod holes;
mod http_frontend;
mod https;
mod identity;
mod lifetime;
mod links;
mod malformed;
mod migration;
mod narrow;
mod numbers;
mod programs_log;
mod proxies;
mod renumbering;
mod resets;
mod resolvers;
mod restarts;
mod service_addresses;
mod skew;
mod slow_clients;
mod stage;
mod stalled;
mod stops;
mod strangers;
mod transparent;
mod units;
mod upgrades;
mod windows;
mod yurt_tunnel;
