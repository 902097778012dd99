//! Whether this process can do its work, as named conditions that must all hold.
//!
//! A part registers its condition before it starts, so that the process cannot look ready before
//! the part had its say; a part that ends takes readiness with it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The conditions of this process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, ConditionState>>>);

/// One part's condition. Dropping it says that the part ended.
#[derive(Debug)]
pub struct Condition {
    name: &'static str,
    conditions: Readiness,
}

/// Whether a condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionState {
    /// It holds.
    Ready,
    /// It does not, and why.
    NotReady(String),
}

/// What all conditions said at one moment; prints as the body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report(pub Vec<(&'static str, ConditionState)>);

impl Readiness {
    /// Adds a condition, which does not hold yet. Names are distinct: a part that takes the name
    /// of one that ended replaces it.
    pub fn register(&self, name: &'static str) -> Condition {
        self.set(name, ConditionState::NotReady("starting".to_owned()));
        Condition {
            name,
            conditions: self.clone(),
        }
    }

    /// What all conditions say now, by name.
    pub fn report(&self) -> Report {
        let states = self.states();
        Report(states.iter().map(|(k, v)| (*k, v.clone())).collect())
    }

    fn set(&self, name: &'static str, state: ConditionState) {
        self.states().insert(name, state);
    }

    /// Each change is one insert, so a panic elsewhere cannot leave a half-made one.
    fn states(&self) -> MutexGuard<'_, BTreeMap<&'static str, ConditionState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// The condition holds from now on.
    pub fn ready(&self) {
        self.conditions.set(self.name, ConditionState::Ready);
    }

    /// The condition does not hold from now on. The reason is for a person.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.conditions
            .set(self.name, ConditionState::NotReady(reason.into()));
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.not_ready("stopped");
    }
}

impl Report {
    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        self.0
            .iter()
            .all(|(_, state)| *state == ConditionState::Ready)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, state) in &self.0 {
            match state {
                ConditionState::Ready => writeln!(f, "[+]{name} ok")?,
                ConditionState::NotReady(reason) => writeln!(f, "[-]{name} {reason}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_only_while_every_condition_holds() {
        let readiness = Readiness::default();
        let redirect = readiness.register("redirect");
        let agents = readiness.register("agents");
        redirect.ready();
        assert!(!readiness.report().is_ready());
        agents.ready();
        assert!(readiness.report().is_ready());
        agents.not_ready("port 10262 is taken");
        assert_eq!(
            readiness.report().to_string(),
            "[-]agents port 10262 is taken\n[+]redirect ok\n"
        );
    }

    #[test]
    fn a_part_that_ends_takes_readiness_with_it() {
        let readiness = Readiness::default();
        let condition = readiness.register("tunnel");
        condition.ready();
        drop(condition);
        assert_eq!(readiness.report().to_string(), "[-]tunnel stopped\n");
        assert!(!readiness.report().is_ready());
    }
}
