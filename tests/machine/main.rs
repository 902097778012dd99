//! What takes a machine of its own: its clock is set, its security modules get profiles. The vm tier runs these, and
//! nothing else does.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics where it stands"
)]

mod apparmor;
mod clock;
