//! Flags that server and agent have in common.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{ArgAction, Args, ValueEnum};

use super::{ByteSize, InvalidByteSize};
use crate::{
    model::NodeName,
    observability::logging::{LogFilter, LogFormat},
    tunnel::Settings,
};

const MIN_WINDOW: ByteSize = ByteSize::new(16 << 10);
const MIN_MEMORY: ByteSize = ByteSize::new(32 << 20);
const MAX_WINDOW: ByteSize = ByteSize::new(64 << 20);

/// Where settings come from besides flags and environment.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// YAML file with settings: the names of the flags without the dashes, one to a line
    ///
    /// Repeatable flags take lists, switches take true or false. Precedence, from high to low:
    /// flag, environment variable `CULVERT_<FLAG>` (capitals, `_` for `-`), this file, default.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How metrics are named, besides their own names.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Meta")]
pub struct MetricNameArgs {
    /// Show on /metrics as well, under Yurt-Tunnel's and konnectivity's names, what dashboards made for Yurt-Tunnel
    /// look for
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          hide_default_value = true)]
    pub yurt_tunnel_metrics: bool,
}

/// How sessions, and connections inside them, are carried.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tunnel")]
pub struct SessionArgs {
    /// Give a dial up after this long
    ///
    /// It fails at once, not after this time, when the node's session ends.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = positive_duration)]
    pub dial_timeout: Duration,

    /// The most bytes in flight in one direction of one connection (16KiB to 64MiB)
    ///
    /// A connection begins with 256KiB, or this if it is less, and has fewer while more are open than --memory-limit
    /// has room for. Its window grows with what its reader takes in a round trip, as far as --session-memory reaches;
    /// one that is not read keeps what it has. A single connection carries at most one window per round trip: 16MiB is
    /// 1 Gbit/s at 130 ms.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = window)]
    pub connection_window: ByteSize,

    /// What the windows of a session's connections may be larger than 256KiB, all together, at this end (0B or more)
    ///
    /// Each may take half of what the others leave. An end holds as much only for readers that have stopped after they
    /// were fast, and altogether no more than --memory-limit has room for.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub session_memory: ByteSize,

    /// Connections that one session carries at the same time; further dials are refused
    #[arg(long, value_name = "N", default_value_t = 8192,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections_per_session: u32,

    /// Memory that this process may use in all (32MiB or more); connections get five eighths of it
    /// [default: the limit of its cgroup, which is the container's, or a quarter of the machine's
    /// memory if there is none]
    ///
    /// Each open connection is sure of 16 KiB; a dial for which there are none is refused. Windows
    /// are smaller than they should be while so many are open that they would not fit.
    #[arg(long, value_name = "SIZE", value_parser = memory_limit)]
    pub memory_limit: Option<ByteSize>,

    /// Ask the other end for a sign of life after this long without one
    ///
    /// A server lets its agent ask first: it waits a quarter of the keepalive timeout longer.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = positive_duration)]
    pub keepalive_interval: Duration,

    /// End the session when the sign of life does not come within this time
    ///
    /// A link that went dead is noticed after the interval and this time together, at most.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = positive_duration)]
    pub keepalive_timeout: Duration,

    /// At a graceful stop, give open connections this long to end by themselves
    ///
    /// A second SIGTERM or SIGINT ends them at once. 0s ends them at the first.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,
}

impl SessionArgs {
    /// The limits of a session.
    pub fn settings(&self) -> Settings {
        let window = self.connection_window.bytes();
        Settings {
            connection_window: window.try_into().unwrap_or(u32::MAX),
            session_memory: self.session_memory.bytes(),
            max_connections: self.max_connections_per_session,
            keepalive_interval: self.keepalive_interval,
            keepalive_timeout: self.keepalive_timeout,
            dial_timeout: self.dial_timeout,
            ..Settings::default()
        }
    }
}

/// How to log.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// off, error, warn, info, debug or trace; or a list by module, as in `info,culvert::tunnel=debug`
    ///
    /// info tells of start and stop, nodes and sessions; debug tells of each connection.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogFilter,

    /// Lines for people, or one JSON object to a line
    #[arg(long, value_name = "FORMAT", default_value_t = LogFormat::Text, value_enum)]
    pub log_format: LogFormat,
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value().expect("no format is hidden");
        f.write_str(value.get_name())
    }
}

/// The name of this machine's node: as given, or the host name.
pub(super) fn node_name(given: Option<&NodeName>) -> anyhow::Result<NodeName> {
    if let Some(name) = given {
        return Ok(name.clone());
    }
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().to_lowercase();
    host.parse()
        .context("the host name cannot serve as the node's name, give one with --node-name")
}

/// A duration that is not zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it must be more than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}, as in 5s, 1m30s or 90d")),
    }
}

fn byte_size(text: &str) -> Result<ByteSize, String> {
    text.parse()
        .map_err(|error: InvalidByteSize| error.to_string())
}

fn memory_limit(text: &str) -> Result<ByteSize, String> {
    let size = byte_size(text)?;
    if size >= MIN_MEMORY {
        Ok(size)
    } else {
        Err(format!("it must be {MIN_MEMORY} or more"))
    }
}

fn window(text: &str) -> Result<ByteSize, String> {
    let size = byte_size(text)?;
    if (MIN_WINDOW..=MAX_WINDOW).contains(&size) {
        Ok(size)
    } else {
        Err(format!("it must be from {MIN_WINDOW} to {MAX_WINDOW}"))
    }
}
