//! Composition roots: each binds, wires and runs one role, and nothing else spawns top-level tasks.

pub mod agent;
mod arrival;
mod certificates;
mod descriptors;
mod memory_limit;
mod node_table;
pub mod server;
mod service_table;
mod signals;
mod socket_takeover;
mod tasks;
