//! The redirect on a real kernel: each test has its own network, cgroup and pins.

mod decisions;
mod lab;
mod liveness;
mod logging;
mod privileges;
mod race;
