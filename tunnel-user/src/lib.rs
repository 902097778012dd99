//! Culvert carries a control plane's connections to edge nodes that sit behind NAT.
//!
//! Dependencies between the modules run one way:
//! ```text
//! main -> cli -> settings, standalone, observability     (reads what is asked for; small commands)
//! main -> app/{server,agent} -> settings                 (composition roots: bind, wire, run, drain)
//! app -> frontend -> tunnel -> model
//! app -> redirect -> model             app -> standalone, kubernetes -> model, pki
//! frontend, tunnel -> strangers         (places for those who have proved nothing)
//! tunnel, standalone -> outgoing       (the agent's own sockets)
//! standalone -> tunnel::grpc           (calls over a given stream)
//! tunnel, kubernetes -> backoff        app, tunnel, kubernetes -> wait
//! cli, app -> yurt_tunnel -> model      (what Yurt-Tunnel left on this machine)
//! standalone, kubernetes -> certificates -> pki
//! pki, observability, model            depend on nothing above them
//! ```
//! To follow one connection, read `app::server`, `frontend::transparent`, `tunnel::server`, and
//! `redirect` with the kernel programs beside it.

pub mod app;
mod backoff;
mod bind;
mod certificates;
pub mod cli;
pub mod frontend;
pub mod kubernetes;
pub mod model;
pub mod observability;
mod outgoing;
pub mod pki;
pub mod redirect;
pub mod settings;
pub mod standalone;
mod strangers;
mod sys;
pub mod tunnel;
mod wait;
pub mod yurt_tunnel;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
