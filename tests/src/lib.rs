//! What the tests, the benchmarks and the demo stand on: sealed networks, cgroups, programs to run in them.
//!
//! ```text
//! Lab::nat()   control plane ── router (NAT) ── edge      no default route, no link to the machine
//!    └ NetNs ── Launch ──> Daemon                         programs run nowhere else
//! Cgroup, PinRoot                                         where the redirect attaches, where it pins
//! Site                                                    culvert set up in a lab
//! ```
//! Everything carries the process id in its name (see [`unique`]), so runs do not meet, and what a killed run
//! left behind is found and removed by the next one.

pub mod bpffs;
pub mod cgroup;
pub mod cluster;
pub mod command;
pub mod credential;
pub mod crowd;
pub mod daemon;
pub mod handover;
pub mod lab;
pub mod link;
pub mod netns;
pub mod process;
pub mod programs;
pub mod report;
pub mod samples;
pub mod scale;
pub mod site;
pub mod sweep;
pub mod unique;
pub mod until;
pub mod usage;

pub use bpffs::{BpfMount, PinRoot};
pub use cgroup::Cgroup;
pub use daemon::{Daemon, Launch};
pub use lab::{Edge, Lab, Pod};
pub use netns::NetNs;
pub use samples::Samples;
pub use site::Site;
pub use until::until;
