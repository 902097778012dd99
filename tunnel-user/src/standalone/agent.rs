//! The agent's side: it enrols once, keeps its credential, and renews it in time.
//!
//! Enrolment is not the certificate manager's: a token is good once and a refusal is final, so that
//! somebody has to act, and there is nothing to schedule.

mod call;
mod credentials;
mod enrol;
mod identity;
mod plan;
mod renewal;

#[cfg(test)]
mod tests;

pub use call::CallError;
pub(crate) use credentials::{AgentCredentials, AgentOptions};
