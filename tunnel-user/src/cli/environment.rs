//! The environment variables that mean something to culvert.

use std::{collections::BTreeMap, ffi::OsString};

/// Before the name of the flag, in capitals and with `_` for `-`.
const PREFIX: &str = "CULVERT_";

/// Flags that also listen to the name that Kubernetes manifests customarily give.
const CUSTOMARY: [(&str, &str); 2] = [("node-name", "NODE_NAME"), ("node-ip", "NODE_IP")];

/// A copy of the environment, so that parsing depends on nothing outside its arguments.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Copies what concerns culvert from the environment of this process.
    pub fn of_this_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect()
    }

    /// The variable that sets a flag, and its value. An empty variable counts as not set, as
    /// manifests and unit files cannot always leave one out.
    pub(super) fn value_of(&self, flag: &str) -> Option<(String, &OsString)> {
        let customary = CUSTOMARY.iter().filter(|(of, _)| *of == flag);
        std::iter::once(variable(flag))
            .chain(customary.map(|(_, name)| (*name).to_owned()))
            .find_map(|name| {
                let value = self.0.get(&name).filter(|value| !value.is_empty())?;
                Some((name, value))
            })
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let own = |name: &String| {
            name.starts_with(PREFIX) || CUSTOMARY.iter().any(|(_, customary)| customary == name)
        };
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .filter(|(name, _)| own(name))
                .collect(),
        )
    }
}

fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.replace('-', "_").to_uppercase())
}
