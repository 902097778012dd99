//! Names one object of a known kind.

use std::{fmt, str::FromStr};

/// Namespace and name of an object, written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace it lives in.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// Why a string is not an [`ObjectName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not NAMESPACE/NAME, as in kube-system/x-tunnel-server-svc")]
pub struct InvalidObjectName(String);

impl FromStr for ObjectName {
    type Err = InvalidObjectName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(InvalidObjectName(text.to_owned())),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whatever else is wrong with a name, the API server says; these are the characters that it could
/// mistake for another part of a path.
fn is_name(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    !text.is_empty() && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        let name = "kube-system/yurt-tunnel-server-cfg";
        assert_eq!(name.parse::<ObjectName>().unwrap().to_string(), name);
    }

    #[test]
    fn refuses_what_names_no_object() {
        for text in ["", "a", "/a", "a/", "a/b/c", "A/b", "a/b?c"] {
            assert!(text.parse::<ObjectName>().is_err(), "{text:?} was accepted");
        }
    }
}
