//! Every Node as it was heard of last.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;

use super::{
    ClusterProblem,
    index::Rules,
    listing::NodePlace,
    node::{NodeFacts, NodeObject},
};
use crate::model::NodeName;

/// What Nodes say. Who reads a clone of `facts` later finds by comparison what has changed since.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Nodes {
    pub(super) facts: OrdMap<NodeName, Arc<NodeFacts>>,
    /// Where each is reached.
    pub(super) places: OrdMap<NodeName, NodePlace>,
    /// Objects whose name is none, by that.
    pub(super) nameless: BTreeMap<String, ClusterProblem>,
}

impl Nodes {
    /// As they were saved.
    pub(super) fn restored(facts: OrdMap<NodeName, Arc<NodeFacts>>, rules: &Rules) -> Self {
        let places = facts.values().map(|facts| place(facts, rules));
        Self {
            places: places.collect(),
            facts,
            nameless: BTreeMap::new(),
        }
    }

    /// Takes a Node; whether it says anything else than before.
    pub(super) fn insert(&mut self, object: &NodeObject, rules: &Rules) -> bool {
        match NodeFacts::read(object) {
            Ok(facts)
                if self
                    .facts
                    .get(&facts.name)
                    .is_some_and(|known| **known == facts) =>
            {
                false
            }
            Ok(facts) => {
                self.places.extend([place(&facts, rules)]);
                self.facts.insert(facts.name.clone(), Arc::new(facts));
                true
            }
            Err(error) => {
                let problem = ClusterProblem::node_name(&error);
                let before = self.nameless.insert(object.name().to_owned(), problem);
                before.is_none()
            }
        }
    }

    /// The Node is gone; whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        match name.parse::<NodeName>() {
            Ok(name) => {
                self.places.remove(&name);
                self.facts.remove(&name).is_some()
            }
            Err(_) => self.nameless.remove(name).is_some(),
        }
    }
}

fn place(facts: &NodeFacts, rules: &Rules) -> (NodeName, NodePlace) {
    let place = if rules.is_tunnelled(facts) {
        NodePlace::Tunnelled
    } else {
        NodePlace::direct(facts)
    };
    (facts.name.clone(), place)
}
