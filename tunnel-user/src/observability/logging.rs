//! Logs: one line per event, on stderr.

use std::{fmt, io, str::FromStr};

use anyhow::anyhow;
use clap::ValueEnum;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::ParseError, layer::SubscriberExt as _, registry,
    util::SubscriberInitExt as _,
};

use super::{log_limit::LogRateLimiter, one_line::OneLine};

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

/// The target of the lines that say who did what.
pub const AUDIT: &str = "culvert::audit";

/// The targets of lines that nobody gets unless each is asked for, those of the kernel programs; and of those of which
/// none may be missing.
const NOT_LIMITED: [&str; 2] = ["tunnel_user::ebpf", AUDIT];

/// Sends this process's logs to stderr from now on. Works once in a process.
pub fn init(filter: &LogFilter, format: LogFormat) -> anyhow::Result<()> {
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    let started = subscriber(filter, format, colours, io::stderr)?.try_init();
    started.map_err(|cause| anyhow!("cannot start logging: {cause}"))
}

fn subscriber<W: io::Write + 'static>(
    filter: &LogFilter,
    format: LogFormat,
    colours: bool,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> anyhow::Result<impl Subscriber + Send + Sync + 'static> {
    let writer = move || OneLine(writer());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok(registry()
        .with(filter.without_echoes().build()?)
        .with(LogRateLimiter::new(&NOT_LIMITED))
        .with(lines))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{debug, info, subscriber::with_default, warn};

    use super::*;
    use crate::redirect::LOG_TARGET;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `log` writes.
    fn lines(format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let filter = "info,tunnel_user=debug".parse().unwrap();
        let subscriber = subscriber(&filter, format, false, move || writer.clone()).unwrap();
        with_default(subscriber, log);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_anybody_can_cause_a_thousand_times_is_logged_a_few_times() {
        let log = || {
            for n in 0..1000 {
                info!(peer = n, "refused a certificate");
                warn!(node = %format_args!("edge-{}", n % 2), "refused an agent");
                info!(target: LOG_TARGET, "connect");
                info!(target: AUDIT, node = "edge-0", "somebody's doing");
            }
        };
        let lines = lines(LogFormat::Text, log);
        let of = |message: &str| lines.iter().filter(|line| line.contains(message)).count();
        assert_eq!(of("refused a certificate"), 10);
        let agents = |node: &str| {
            let is_of = |line: &&String| line.contains("an agent") && line.contains(node);
            lines.iter().filter(is_of).count()
        };
        assert_eq!((agents("node=edge-0"), agents("node=edge-1")), (10, 10));
        assert_eq!(of("connect"), 1000, "asked for by a flag of its own");
        assert_eq!(of("culvert::audit"), 1000, "none may be missing");
    }

    #[test]
    fn what_is_asked_for_by_a_level_is_logged_whole() {
        let log = || (0..1000).for_each(|_| debug!("refused"));
        assert_eq!(lines(LogFormat::Text, log).len(), 1000);
    }

    #[test]
    fn nobody_writes_a_line_of_his_own_into_the_log() {
        let forged = "x\r\n2026-01-01T00:00:00Z WARN all is lost\u{202e}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = || {
                info!(address = %forged, text = forged, "cannot dial");
                info!("cannot dial {forged}");
            };
            assert_eq!(lines(format, log).len(), 2);
        }
    }

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
