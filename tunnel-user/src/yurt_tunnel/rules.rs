//! The rules of table `nat` as `iptables-save` prints them: which are Yurt-Tunnel's, and what removes just those.
//!
//! A rule is Yurt-Tunnel's if it is exactly one of the four that it makes
//! (<https://github.com/openyurtio/openyurt/blob/v1.5.0/pkg/yurttunnel/trafficforward/iptables/iptables.go>), comment
//! included. Whatever else stands in its chains, or leads there, is somebody else's and stays, and its chain with it.

use std::collections::{BTreeMap, BTreeSet};

use super::{CHAIN, TABLE, is_own, port_of};

const JUMP_COMMENT: &str = "yurttunnel server port";
const RETURN_COMMENT: &str = "return request to access node directly";
const DNAT_COMMENT: &str = "dnat to tunnel for access node";

/// What concerns Yurt-Tunnel in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatRules {
    /// Its rules, as they were printed.
    pub own: Vec<String>,
    /// Its chains.
    pub chains: BTreeSet<String>,
    /// Rules of others in these chains, or that lead there.
    pub foreign: Vec<String>,
    /// The chains that stay for the sake of those.
    pub kept: BTreeSet<String>,
}

/// One rule.
struct Rule {
    chain: String,
    /// By option; matches that are loaded (`-m`) are left out.
    options: BTreeMap<String, String>,
}

impl NatRules {
    /// Reads what `iptables-save -t nat` printed.
    pub fn parse(saved: &str) -> Self {
        let mut rules = Self::default();
        for line in saved.lines() {
            if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                if is_own(name) {
                    rules.chains.insert(name.to_owned());
                }
            } else if let Some(words) = words(line).filter(|words| concerns(words)) {
                rules.judge(line, &words);
            }
        }
        rules
    }

    fn judge(&mut self, line: &str, words: &[String]) {
        if Rule::of(words).is_some_and(|rule| rule.is_yurt_tunnels()) {
            self.own.push(line.to_owned());
            return;
        }
        self.foreign.push(line.to_owned());
        // In which it stands, and to which it leads.
        let chains = words.iter().filter(|word| is_own(word));
        self.kept.extend(chains.cloned());
    }

    /// Whether there is nothing to remove.
    pub fn is_clean(&self) -> bool {
        self.own.is_empty() && self.removable().next().is_none()
    }

    /// The chains that go.
    pub fn removable(&self) -> impl Iterator<Item = &str> {
        self.chains.difference(&self.kept).map(String::as_str)
    }

    /// What `iptables-restore --noflush` does as one step.
    pub fn removal(&self) -> String {
        let mut script = format!("*{TABLE}\n");
        for rule in &self.own {
            let rule = rule.strip_prefix("-A ").unwrap_or(rule);
            script.extend(["-D ", rule, "\n"]);
        }
        for chain in self.removable() {
            script.extend(["-X ", chain, "\n"]);
        }
        script.push_str("COMMIT\n");
        script
    }
}

/// Whether a rule stands in one of the chains, or names one.
fn concerns(words: &[String]) -> bool {
    words.first().is_some_and(|word| word == "-A") && words.iter().skip(1).any(|word| is_own(word))
}

impl Rule {
    /// `None` for what no rule of Yurt-Tunnel's looks like.
    fn of(words: &[String]) -> Option<Self> {
        let mut words = words.iter().skip(1);
        let chain = words.next()?.clone();
        let mut options = BTreeMap::new();
        while let Some(option) = words.next() {
            let value = words.next()?;
            if option == "-m" && ["tcp", "comment"].contains(&value.as_str()) {
                continue;
            }
            let twice = options.insert(option.clone(), value.clone()).is_some();
            if twice || !option.starts_with('-') {
                return None;
            }
        }
        Some(Self { chain, options })
    }

    fn is_yurt_tunnels(&self) -> bool {
        let Self { chain, options } = self;
        let says = |option: &str| options.get(option).map(String::as_str);
        let has_only =
            |names: &[&str]| options.keys().map(String::as_str).eq(names.iter().copied());
        if says("-p") != Some("tcp") {
            return false;
        }
        let (comment, target) = (says("--comment"), says("-j"));
        if chain == "OUTPUT" {
            return has_only(&["--comment", "-j", "-p"])
                && (comment, target) == (Some(JUMP_COMMENT), Some(CHAIN));
        }
        let Some(port) = says("--dport").and_then(|port| port.parse::<u16>().ok()) else {
            return false;
        };
        if chain == CHAIN {
            let jump = format!("jump to port {port}");
            let leads = target.and_then(port_of) == Some(port);
            return has_only(&["--comment", "--dport", "-j", "-p"])
                && comment == Some(&*jump)
                && leads;
        }
        if port_of(chain) != Some(port) {
            return false;
        }
        match target {
            Some("RETURN") => {
                has_only(&["--comment", "--dport", "-d", "-j", "-p"])
                    && comment == Some(RETURN_COMMENT)
            }
            Some("DNAT") => {
                has_only(&["--comment", "--dport", "--to-destination", "-j", "-p"])
                    && comment == Some(DNAT_COMMENT)
            }
            _ => false,
        }
    }
}

/// The words of a line, without the quotes that iptables puts around what has spaces in it; `None` where a quote does
/// not end.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut is_quoted, mut chars) = (false, line.chars());
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => word.get_or_insert_default().push(chars.next()?),
            ' ' if !is_quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    (!is_quoted).then_some(words)
}

#[cfg(test)]
mod tests;
