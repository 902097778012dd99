//! Culvert carries a control plane's connections to edge nodes that sit behind NAT.
//!
//! Dependencies between the modules run one way:
//! ```text
//! cli -> app/{server,agent}          (composition roots: bind, wire, run, drain)
//! app -> frontend -> tunnel -> model
//! app -> redirect -> model           app -> standalone -> model, pki
//! pki, observability, model          depend on nothing above them
//! ```

pub mod app;
pub mod cli;
pub mod frontend;
mod grpc;
pub mod model;
pub mod observability;
mod outgoing;
pub mod pki;
pub mod redirect;
pub mod standalone;
pub mod tunnel;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
