//! Ways in: what accepts clients, finds the node they want, and hands them to the tunnel.

pub mod transparent;
