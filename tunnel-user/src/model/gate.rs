//! What a connect to a node gets when culvert does not carry it.

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
