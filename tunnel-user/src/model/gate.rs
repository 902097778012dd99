//! What a connect to a node gets when culvert does not carry it.
//!
//! Two questions, asked in this order:
//!
//! - Is the *gate* closed: is no server there, or does it hang? Then the [`GatePolicy`] decides. It
//!   is the node's own where it has one (`closed_gate` of [`Node`](super::Node)), else the server's
//!   (`--gate-policy`); the kernel programs find it in the node's entry (`closed_gate`, one of
//!   `tunnel_ebpf::policy`).
//! - Is the gate open? Then the node's *mode* decides (`redirect::NodeMode`,
//!   `tunnel_ebpf::node_mode`): a node without a session may be set aside by `--offline-nodes`.

use serde::{Deserialize, Serialize};

/// The policy for connects to a node while the redirect's gate is closed: the server is down, or
/// hangs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum GatePolicy {
    /// The connect passes untouched, as if culvert were not there.
    #[default]
    Bypass,
    /// The connect fails at once with `ECONNREFUSED`.
    Refuse,
}
