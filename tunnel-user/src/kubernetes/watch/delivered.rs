//! What a watch has told, held against a list from time to time. A watch may be silent for ever and look well: it
//! resumes from a revision that the API server does not have, as after etcd was restored, or something on the way keeps
//! the connection open and delivers nothing.
//!
//! A difference counts if it is the same twice in a row: what was listed may be told a moment later.

use std::collections::{BTreeSet, HashMap};

use kube::{Resource, ResourceExt as _, runtime::watcher::Event};

/// Which object, and which version of it.
pub(super) type Version = (String, String);

/// The versions that were told last, and the differences that were found last.
#[derive(Debug, Default)]
pub(super) struct DeliveredVersions {
    versions: HashMap<String, String>,
    /// While a list comes in, what it had so far.
    listing: Option<HashMap<String, String>>,
    differences: BTreeSet<Version>,
}

/// What a comparison has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The list has what was told.
    Same,
    /// It does not; perhaps not yet.
    Differs,
    /// It did not the last time either, in the same way: nothing more will be told.
    Stale,
}

impl DeliveredVersions {
    pub(super) fn apply<K: Resource>(&mut self, event: &Event<K>) {
        match event {
            Event::Init => self.listing = Some(HashMap::new()),
            Event::InitApply(object) => {
                let (uid, version) = version(object);
                self.listing.get_or_insert_default().insert(uid, version);
            }
            Event::InitDone => {
                self.versions = self.listing.take().unwrap_or_default();
                self.differences.clear();
            }
            Event::Apply(object) => {
                let (uid, version) = version(object);
                self.versions.insert(uid, version);
            }
            Event::Delete(object) => {
                self.versions.remove(&version(object).0);
            }
        }
    }

    pub(super) fn compare(&mut self, listed: Vec<Version>) -> Comparison {
        if self.listing.is_some() {
            return Comparison::Same;
        }
        let listed: HashMap<_, _> = listed.into_iter().collect();
        let told_otherwise = listed
            .iter()
            .filter(|(uid, version)| self.versions.get(*uid) != Some(*version))
            .map(|(uid, version)| (uid.clone(), version.clone()));
        let not_listed = self
            .versions
            .keys()
            .filter(|uid| !listed.contains_key(*uid))
            .map(|uid| (uid.clone(), String::new()));
        let differences: BTreeSet<_> = told_otherwise.chain(not_listed).collect();
        let comparison = if differences.is_empty() {
            Comparison::Same
        } else if differences.is_disjoint(&self.differences) {
            Comparison::Differs
        } else {
            Comparison::Stale
        };
        self.differences = if comparison == Comparison::Stale {
            BTreeSet::new()
        } else {
            differences
        };
        comparison
    }
}

pub(super) fn version(object: &impl Resource) -> Version {
    let version = object.resource_version().unwrap_or_default();
    (object.uid().unwrap_or_default(), version)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;

    use super::*;

    fn node(uid: &str, version: &str) -> Node {
        let mut node = Node::default();
        node.metadata.uid = Some(uid.to_owned());
        node.metadata.resource_version = Some(version.to_owned());
        node
    }

    fn compare(delivered: &mut DeliveredVersions, listed: &[Node]) -> Comparison {
        delivered.compare(listed.iter().map(version).collect())
    }

    fn delivered(nodes: &[(&str, &str)]) -> DeliveredVersions {
        let mut delivered = DeliveredVersions::default();
        delivered.apply(&Event::<Node>::Init);
        for (uid, version) in nodes {
            delivered.apply(&Event::InitApply(node(uid, version)));
        }
        delivered.apply(&Event::<Node>::InitDone);
        delivered
    }

    #[test]
    fn what_was_told_and_is_listed_is_the_same() {
        let mut delivered = delivered(&[("a", "1"), ("b", "2")]);
        delivered.apply(&Event::Apply(node("b", "3")));
        delivered.apply(&Event::Delete(node("a", "4")));
        assert_eq!(compare(&mut delivered, &[node("b", "3")]), Comparison::Same);
    }

    #[test]
    fn a_change_a_removal_and_an_addition_that_are_never_told_are_noticed_the_second_time() {
        for listed in [
            vec![node("a", "9"), node("b", "2")],
            vec![node("a", "1")],
            vec![node("a", "1"), node("b", "2"), node("c", "3")],
        ] {
            let mut delivered = delivered(&[("a", "1"), ("b", "2")]);
            assert_eq!(compare(&mut delivered, &listed), Comparison::Differs);
            assert_eq!(compare(&mut delivered, &listed), Comparison::Stale);
        }
    }

    #[test]
    fn what_changes_all_the_time_is_not_stale() {
        let mut delivered = delivered(&[("a", "1")]);
        assert_eq!(
            compare(&mut delivered, &[node("a", "2")]),
            Comparison::Differs
        );
        delivered.apply(&Event::Apply(node("a", "2")));
        assert_eq!(
            compare(&mut delivered, &[node("a", "3")]),
            Comparison::Differs
        );
        delivered.apply(&Event::Apply(node("a", "3")));
        assert_eq!(compare(&mut delivered, &[node("a", "3")]), Comparison::Same);
    }

    #[test]
    fn while_a_list_comes_in_nothing_is_compared() {
        let mut delivered = delivered(&[("a", "1")]);
        let listed = [node("a", "2")];
        assert_eq!(compare(&mut delivered, &listed), Comparison::Differs);
        delivered.apply(&Event::<Node>::Init);
        assert_eq!(compare(&mut delivered, &listed), Comparison::Same);
        delivered.apply(&Event::InitApply(node("a", "2")));
        delivered.apply(&Event::<Node>::InitDone);
        assert_eq!(compare(&mut delivered, &listed), Comparison::Same);
    }
}
