//! Who asks for something, as Kubernetes knows its users.

use std::collections::BTreeMap;

/// The group of everybody whose identity has been proved.
const AUTHENTICATED: &str = "system:authenticated";

/// A user, with all that permissions may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// Unique among those of the cluster.
    pub name: String,
    /// Empty where whoever knows the user gives none.
    pub uid: String,
    /// What the user is a member of.
    pub groups: Vec<String>,
    /// What authorisers may want to know besides.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// One that is known by a name and groups alone, as the holder of a certificate is.
    pub fn authenticated(name: String, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<_> = groups.into_iter().collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self {
            name,
            uid: String::new(),
            groups,
            extra: BTreeMap::new(),
        }
    }
}
