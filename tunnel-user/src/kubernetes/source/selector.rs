//! Which nodes are tunnelled, by their labels.
//!
//! The API server could filter by label, but the other nodes matter too: their addresses are never
//! captured, whoever claims them. So all nodes are watched, and selectors are applied here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use kube::core::{Expression, Selector, SelectorExt as _};

/// The longest name or value of a label.
const MAX_LEN: usize = 63;
/// The longest prefix of a label's key (a DNS name).
const MAX_PREFIX_LEN: usize = 253;

/// A label selector as `kubectl get -l` takes it, see
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSelector(Selector);

/// Why a text is not a [`NodeSelector`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNodeSelector {
    /// It says nothing.
    #[error("an empty selector would match every node: give the labels of the edge nodes")]
    Empty,
    /// It is none.
    #[error(
        "{0:?} is not a label selector: expected KEY=VALUE, KEY!=VALUE, KEY in (A,B), \
         KEY notin (A,B), KEY or !KEY, several of them joined by commas where all must hold"
    )]
    Form(String),
}

impl NodeSelector {
    /// Whether a node with these labels is tunnelled.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.matches(labels)
    }
}

impl FromStr for NodeSelector {
    type Err = InvalidNodeSelector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Err(InvalidNodeSelector::Empty);
        }
        requirements(text)
            .map(expression)
            .collect::<Option<Selector>>()
            .map(Self)
            .ok_or_else(|| InvalidNodeSelector::Form(text.to_owned()))
    }
}

impl fmt::Display for NodeSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Splits at commas, but not at those of a list of values.
fn requirements(text: &str) -> impl Iterator<Item = &str> {
    let mut in_list = false;
    text.split(move |c| {
        match c {
            '(' => in_list = true,
            ')' => in_list = false,
            _ => {}
        }
        c == ',' && !in_list
    })
}

fn expression(text: &str) -> Option<Expression> {
    let text = text.trim();
    if let Some((key, equals)) = text.split_once("!=") {
        return Some(Expression::NotEqual(self::key(key)?, value(equals)?));
    }
    if let Some((key, equals)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Expression::Equal(self::key(key)?, value(equals)?));
    }
    if let Some(list) = text.strip_suffix(')') {
        let (head, list) = list.split_once('(')?;
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        let values: BTreeSet<String> = list.split(',').map(value).collect::<Option<_>>()?;
        return match operator {
            "in" => Some(Expression::In(self::key(key)?, values)),
            "notin" => Some(Expression::NotIn(self::key(key)?, values)),
            _ => None,
        };
    }
    match text.strip_prefix('!') {
        Some(key) => self::key(key).map(Expression::DoesNotExist),
        None => key(text).map(Expression::Exists),
    }
}

fn key(text: &str) -> Option<String> {
    let text = text.trim();
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let is_prefix = |prefix: &str| is_word(prefix, MAX_PREFIX_LEN);
    let valid = prefix.is_none_or(is_prefix) && is_word(name, MAX_LEN);
    valid.then(|| text.to_owned())
}

fn value(text: &str) -> Option<String> {
    let text = text.trim();
    let valid = text.is_empty() || is_word(text, MAX_LEN);
    valid.then(|| text.to_owned())
}

fn is_word(text: &str, max_len: usize) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let outer = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= max_len
        && outer(bytes.first())
        && outer(bytes.last())
        && bytes.iter().copied().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let selector: NodeSelector = selector.parse().unwrap();
        selector.matches(&labels.collect())
    }

    #[test]
    fn matches_as_kubectl_does() {
        let edge = [("openyurt.io/is-edge-worker", "true"), ("zone", "b")];
        for selector in [
            "openyurt.io/is-edge-worker=true",
            "openyurt.io/is-edge-worker == true",
            "openyurt.io/is-edge-worker=true,zone=b",
            "zone",
            " zone , !cloud",
            "zone in (a, b)",
            "zone in(b),zone notin (c,d)",
            "zone!=a",
            "missing!=a",
            "missing notin (a)",
        ] {
            assert!(matches(selector, &edge), "{selector:?} did not match");
        }
        for selector in [
            "openyurt.io/is-edge-worker=false",
            "openyurt.io/is-edge-worker=",
            "zone=b,missing",
            "!zone",
            "zone in (a,c)",
            "zone notin (a,b)",
            "missing in (a)",
        ] {
            assert!(!matches(selector, &edge), "{selector:?} matched");
        }
    }

    #[test]
    fn refuses_what_it_would_have_to_guess_with_the_forms() {
        assert_eq!(" ".parse::<NodeSelector>(), Err(InvalidNodeSelector::Empty));
        for text in [
            ",",
            "a=b,",
            "a b",
            "a=b=c",
            "=b",
            "a/b/c=d",
            "/a",
            "-a=b",
            "a=-",
            "a in b",
            "a in (b",
            "a of (b)",
            "in (b)",
            "a in (b c)",
            "a>1",
            "a=é",
        ] {
            let error = text.parse::<NodeSelector>().unwrap_err().to_string();
            assert!(error.contains("KEY in (A,B)"), "{error}");
        }
    }
}
