//! Logs: one line per event, on stderr.

use std::{fmt, io, str::FromStr};

use anyhow::anyhow;
use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal
    #[default]
    Text,
    /// One JSON object to a line
    Json,
}

/// Which events are logged: a level, or a list of `module=level` with one level for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// The parts of `kube` that log every attempt to reach an API server that is away.
const ECHOING: [&str; 2] = ["kube_client", "kube_runtime"];

/// Why a text is not a [`LogFilter`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a level: use off, error, warn, info, debug or trace, or a list such as \
     info,culvert::tunnel=debug"
)]
pub struct InvalidLogFilter(String);

impl FromStr for LogFilter {
    type Err = InvalidLogFilter;

    /// Stricter than tracing, which takes a misspelt level for the name of a module.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for directive in text.split(',') {
            let level = directive
                .rsplit_once('=')
                .map_or(directive, |(_, level)| level);
            if level.is_empty()
                || level.parse::<u8>().is_ok()
                || level.parse::<LevelFilter>().is_err()
            {
                return Err(InvalidLogFilter(directive.to_owned()));
            }
        }
        let filter = Self(text.to_owned());
        filter
            .build()
            .map_err(|_| InvalidLogFilter(text.to_owned()))?;
        Ok(filter)
    }
}

impl LogFilter {
    /// The same, and what `target` says down to `level`, unless the filter names the target itself.
    #[must_use]
    pub fn with(&self, target: &str, level: LevelFilter) -> Self {
        // Of two directives for one target, the last counts.
        Self(format!("{target}={level},{self}"))
    }

    /// The same without what libraries say of each error that they hand to us as well, unless the
    /// filter names them.
    fn without_echoes(&self) -> Self {
        let silence = |filter: Self, library: &&str| filter.with(library, LevelFilter::OFF);
        ECHOING.iter().fold(self.clone(), silence)
    }

    /// A bare `debug` or `trace` is about culvert: what its libraries say of each frame would bury
    /// it. Who wants that too names the library, as in `debug,h2=debug`.
    fn build(&self) -> Result<EnvFilter, ParseError> {
        let directives = self.0.split(',').map(|directive| match directive {
            "debug" | "trace" => format!("info,tunnel_user={directive}"),
            other => with_crate_name(other),
        });
        EnvFilter::builder().parse(directives.collect::<Vec<_>>().join(","))
    }
}

/// People say `culvert`; the modules of the program are those of the crate `tunnel_user`. What the
/// kernel programs log does go by `culvert`, so both are meant.
fn with_crate_name(directive: &str) -> String {
    match directive.strip_prefix("culvert") {
        Some(rest) if rest.starts_with("::") || rest.starts_with('=') => {
            format!("tunnel_user{rest},{directive}")
        }
        _ => directive.to_owned(),
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sends this process's logs to stderr from now on. Works once in a process.
pub fn init(filter: &LogFilter, format: LogFormat) -> anyhow::Result<()> {
    let filter = filter.without_echoes().build()?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let started = match format {
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            lines.with_ansi(colours).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|cause| anyhow!("cannot start logging: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_levels_and_lists() {
        for text in [
            "off",
            "info",
            "DEBUG",
            "info,h2=debug",
            "warn,culvert::tunnel=trace",
        ] {
            assert_eq!(text.parse::<LogFilter>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_target_is_added_where_the_filter_does_not_name_it() {
        for (text, built) in [
            ("warn", "ebpf=debug,warn"),
            ("ebpf=info,warn", "ebpf=info,warn"),
        ] {
            let filter: LogFilter = text.parse().unwrap();
            let filter = filter.with("ebpf", LevelFilter::DEBUG).build().unwrap();
            assert_eq!(filter.to_string(), built);
        }
    }

    #[test]
    fn an_errors_echo_is_not_logged_unless_it_is_asked_for() {
        for (text, built) in [
            ("info", "kube_runtime=off,kube_client=off,info"),
            (
                "info,kube_client=debug",
                "kube_runtime=off,kube_client=debug,info",
            ),
        ] {
            let filter: LogFilter = text.parse().unwrap();
            let filter = filter.without_echoes().build().unwrap();
            assert_eq!(filter.to_string(), built);
        }
    }

    #[test]
    fn takes_the_programs_name_for_its_crate() {
        for (text, filter) in [
            (
                "culvert::tunnel=debug",
                "tunnel_user::tunnel=debug,culvert::tunnel=debug",
            ),
            ("culvert=trace", "tunnel_user=trace,culvert=trace"),
            ("culverts=trace", "culverts=trace"),
            ("h2=debug", "h2=debug"),
        ] {
            assert_eq!(with_crate_name(text), filter);
        }
    }

    #[test]
    fn refuses_what_tracing_would_take_for_a_module() {
        for text in ["", "ingo", "3", "info,", "info,h2", "h2=loud"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text:?} was accepted");
        }
    }
}
