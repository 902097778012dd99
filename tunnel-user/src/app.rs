//! Composition roots: each binds, wires and runs one role, and nothing else spawns top-level tasks.

pub mod agent;
pub mod server;
