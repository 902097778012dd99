//! What a server and an agent can be told: one struct for each role, one field for each flag.
//!
//! `cli` fills them from flags, environment and file; `app` runs with them.

mod agent;
mod byte_size;
mod kubernetes;
mod secret;
mod server;
mod server_ports;
mod shared;
mod termination;
mod validation;

pub use agent::AgentArgs;
pub use byte_size::{ByteSize, InvalidByteSize};
pub use kubernetes::{ClusterArgs, ServerKubernetesArgs};
pub use secret::Secret;
pub use server::{AllowedClient, EbpfLogLevel, LoopbackPortClients, OfflineNodes, ServerArgs};
pub use shared::{LogArgs, SessionArgs};
pub use termination::TerminationArgs;
