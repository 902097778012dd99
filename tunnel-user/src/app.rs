//! Composition roots: each binds, wires and runs one role, and nothing else spawns top-level tasks.

pub mod agent;
mod bind;
mod descriptors;
mod expiry;
mod handover;
mod node_table;
pub mod server;
mod signals;
mod tasks;
