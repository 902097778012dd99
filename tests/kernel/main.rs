//! Tests on the real kernel. They need root; every packet stays in namespaces that the harness made.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics where it stands"
)]

mod harness_selftest;
mod redirect;
