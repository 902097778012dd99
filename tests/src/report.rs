//! What `probe` prints at its end, one JSON object on one line, and how tests read it back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Of `probe connect` and `probe flood`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Connects {
    /// Tries that went all the way.
    pub succeeded: u64,
    /// Tries that did not: stage and cause (`connect ECONNREFUSED`, `echo EOF`) and how often.
    pub failed: BTreeMap<String, u64>,
    /// What getpeername said, of the connections that came about.
    pub peers: BTreeSet<SocketAddr>,
    /// The first bytes that each server sent, where `--greeting` asked for them.
    pub greetings: BTreeSet<String>,
    /// The longest try in milliseconds, failed ones too.
    pub slowest_ms: f64,
}

impl Connects {
    /// All failures together.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Self) {
        self.succeeded += other.succeeded;
        for (cause, count) in other.failed {
            *self.failed.entry(cause).or_default() += count;
        }
        self.peers.extend(other.peers);
        self.greetings.extend(other.greetings);
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
    }
}

/// Of `acceptor`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Connections whose original destination was known at once.
    pub known: u64,
    /// Connections that nobody redirected, as far as the kernel knows.
    pub unknown: u64,
    /// Original destinations that still wait for their connection at the end.
    pub pending: usize,
    /// What the programs counted, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Of `probe race`: connects to random targets, each of which must hear its own address.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Race {
    /// Connects that heard the address that they had dialled.
    pub right: u64,
    /// Connects that heard another.
    pub wrong: u64,
    /// Connects that failed: stage and cause, and how often.
    pub failed: BTreeMap<String, u64>,
}

/// Of `probe hash`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Hashes {
    /// Connections whose bytes arrived whole and unchanged, both ways.
    pub intact: u64,
    /// Connections where they did not: what was wrong, and how often.
    pub broken: BTreeMap<String, u64>,
    /// Payload bytes sent and received by intact connections.
    pub bytes: u64,
    /// Seconds from the first connect to the last close.
    pub seconds: f64,
}

/// Of `probe hold`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Held {
    /// Connects that came about.
    pub opened: u64,
    /// Connects that did not.
    pub failed: u64,
    /// Connections that the other end has ended.
    pub ended: u64,
}

/// Of `probe ping`: round trips over one connection, in microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pings {
    /// Round trips made.
    pub count: u64,
    /// Half were faster.
    pub p50_us: f64,
    /// Nine of ten were faster.
    pub p90_us: f64,
    /// 99 of 100 were faster.
    pub p99_us: f64,
    /// The slowest one.
    pub max_us: f64,
}

/// Of `probe crowd`, on a line of its own whenever it changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crowd {
    /// Agents that have a session.
    pub up: u32,
    /// How often one of them got a session.
    pub ever: u32,
}

/// Of `probe strangers`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strangers {
    /// Connects that came about.
    pub knocked: u64,
    /// Connects that did not.
    pub failed: u64,
    /// Connects that were left out, because too many others were open.
    pub left_out: u64,
}

/// Reads the report out of a program's output: its last line that can be one. Remarks on the other
/// stream may come later.
pub fn parse<T: DeserializeOwned>(output: &str) -> Result<T> {
    let mut lines = output.lines().rev();
    let line = lines
        .find(|line| line.starts_with('{'))
        .with_context(|| format!("no report in {output:?}"))?;
    serde_json::from_str(line).with_context(|| format!("not a report: {line}"))
}
