//! The environment variables that mean something to culvert.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
};

/// Before the name of the flag, in capitals and with `_` for `-`.
const PREFIX: &str = "CULVERT_";

/// Flags that also listen to the name that Kubernetes manifests customarily give.
const CUSTOMARY: [(&str, &str); 2] = [("node-name", "NODE_NAME"), ("node-ip", "NODE_IP")];

/// What only the command lines of Yurt-Tunnel know.
const OTHERS: [&str; 1] = ["POD_IP"];

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

    /// The same, where it is text.
    pub(super) fn text_of(&self, flag: &str) -> Option<(String, String)> {
        let (variable, value) = self.value_of(flag)?;
        Some((variable, value.to_string_lossy().into_owned()))
    }

    /// A variable that sets no flag; an empty one is not set either.
    pub(super) fn other(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?.to_str()?;
        Some(value).filter(|value| !value.is_empty())
    }

    /// The variables that begin as ours do but set none of these flags. What Kubernetes sets for a
    /// Service whose name begins with `culvert` is not among them.
    pub(super) fn unread(&self, flags: &BTreeSet<String>) -> Vec<&str> {
        let read: BTreeSet<String> = flags.iter().map(|flag| variable(flag)).collect();
        self.0
            .iter()
            .filter(|(name, value)| {
                name.starts_with(PREFIX) && !read.contains(*name) && !of_a_service(name, value)
            })
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let own = |name: &String| {
            let customary = CUSTOMARY.iter().map(|(_, customary)| customary);
            name.starts_with(PREFIX) || customary.chain(&OTHERS).any(|customary| customary == name)
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

/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>
fn of_a_service(name: &str, value: &OsStr) -> bool {
    let is_url = value.to_string_lossy().contains("://");
    name.contains("_SERVICE_") || name.contains("_PORT_") || (name.ends_with("_PORT") && is_url)
}
