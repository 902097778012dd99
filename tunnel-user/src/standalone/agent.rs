//! The agent's side: it enrols once, keeps its credential, and renews it in time.

mod call;
mod credentials;
mod enrol;
mod plan;
mod store;

#[cfg(test)]
mod tests;

pub use call::CallError;
pub use credentials::{AgentCredentials, AgentOptions};
