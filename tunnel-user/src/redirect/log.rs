//! The programs' own log lines, passed on as tracing events with fields.

use std::{io, net::IpAddr};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::sys::bpf;

/// The target of the programs' lines, for filters.
pub const LOG_TARGET: &str = "tunnel_user::ebpf";

/// How much the programs say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[repr(u8)]
pub enum LogLevel {
    /// Connects that are redirected or refused.
    Info = aya_log::Level::Info as u8,
    /// Also connects on tunnelled ports that pass, and why.
    Debug = aya_log::Level::Debug as u8,
}

/// Reads the programs' log until it is told to stop.
pub struct LogTask {
    logger: EbpfLogger<Forward>,
}

impl LogTask {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, aya_log::Error> {
        let logger = EbpfLogger::init_with_logger(ebpf, Forward)?;
        Ok(Self { logger })
    }

    /// Passes lines on as they come.
    ///
    /// # Errors
    /// When the kernel's buffer cannot be waited for.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let mut logger = bpf::wait_for_log(self.logger)?;
        loop {
            let mut guard = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                guard = logger.readable_mut() => guard?,
            };
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}

/// One line of the programs: `verdict=redirect reason=redirected target=::ffff:10.0.0.1 port=10250`.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    verdict: &'a str,
    reason: &'a str,
    address: IpAddr,
    port: u16,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut values = text
            .split(' ')
            .zip(["verdict", "reason", "target", "port"])
            .map(|(word, key)| word.strip_prefix(key)?.strip_prefix('='));
        let mut value = || values.next().flatten();
        Some(Self {
            verdict: value()?,
            reason: value()?,
            address: value()?.parse::<IpAddr>().ok()?.to_canonical(),
            port: value()?.parse().ok()?,
        })
    }
}

struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        let Some(line) = Line::parse(&text) else {
            info!(target: LOG_TARGET, text);
            return;
        };
        let Line {
            verdict,
            reason,
            address,
            port,
        } = line;
        if record.level() <= Level::Info {
            info!(target: LOG_TARGET, verdict, reason, %address, port, "connect");
        } else {
            debug!(target: LOG_TARGET, verdict, reason, %address, port, "connect");
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_fields() {
        let line = "verdict=pass reason=no-listener target=::ffff:10.0.0.1 port=10250";
        let expected = Line {
            verdict: "pass",
            reason: "no-listener",
            address: "10.0.0.1".parse().unwrap(),
            port: 10250,
        };
        assert_eq!(Line::parse(line), Some(expected));
        for wrong in ["", "verdict=pass", "a=1 b=2 c=3 d=4"] {
            assert_eq!(Line::parse(wrong), None, "{wrong:?}");
        }
    }
}
