//! The redirect on a real kernel: each test has its own network, cgroup and pins.

mod addresses;
mod coexistence;
mod decisions;
mod forgery;
mod lab;
mod liveness;
mod logging;
mod namespaces;
mod pins;
mod privileges;
mod race;
mod repair;
mod services;
mod size;
