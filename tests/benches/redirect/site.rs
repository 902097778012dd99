//! A case with a network, a cgroup and a worker of its own.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use culvert_tests::{Cgroup, Daemon, Lab, Launch, PinRoot, unique};

use crate::{
    case::Case,
    worker::{Measured, READY, Request},
};

/// Bytes of one transfer.
const BULK: u64 = 128 << 20;
/// Round trips of one measurement.
const PING_PONGS: usize = 1000;

/// Where one case is measured. The order of the fields is the order of their end.
pub(crate) struct Site {
    pub(crate) case: &'static Case,
    /// Nanoseconds of a connect; one value for each round, as in the following.
    pub(crate) connects: Vec<f64>,
    /// Nanoseconds of accept and of finding out where the client meant to go.
    pub(crate) accepts: Vec<f64>,
    /// Nanoseconds of a transfer.
    pub(crate) bulks: Vec<f64>,
    /// Nanoseconds of a round trip of one byte.
    pub(crate) ping_pongs: Vec<f64>,
    worker: UnixStream,
    daemon: Daemon,
    _pins: PinRoot,
    _cgroup: Cgroup,
    _lab: Lab,
}

impl Site {
    /// Makes the network, loads the rules and starts the worker.
    pub(crate) fn new(case: &'static Case) -> Result<Self> {
        let (lab, cgroup, pins) = (Lab::alone()?, Cgroup::new("bench")?, PinRoot::new()?);
        // Netfilter only sees a connect to an address that a route leads to.
        lab.control().ip("route add 10.200.0.0/15 dev lo")?;
        case.rules
            .load(lab.control())
            .with_context(|| format!("load the rules of {:?}", case.name))?;
        lab.check()?;
        let directory = unique::scratch_dir("bench")?;
        let socket = directory.path().join("worker");
        let mut daemon = Launch::new(lab.control(), std::env::current_exe()?)
            .cgroup(&cgroup)
            .arg("worker")
            .arg(case.name)
            .arg(&socket)
            .arg(cgroup.path())
            .arg(pins.path())
            .start()?;
        daemon.wait_for_line(READY, Duration::from_secs(30))?;
        Ok(Self {
            case,
            connects: Vec::new(),
            accepts: Vec::new(),
            bulks: Vec::new(),
            ping_pongs: Vec::new(),
            worker: UnixStream::connect(&socket)?,
            daemon,
            _pins: pins,
            _cgroup: cgroup,
            _lab: lab,
        })
    }

    pub(crate) fn measure_connects(&mut self, request: &Request) -> Result<()> {
        let measured = self.ask(request)?;
        self.connects.push(measured.ns);
        self.accepts.push(measured.accept_ns);
        Ok(())
    }

    /// Measures what an open connection does, where the case asks for it.
    pub(crate) fn measure_stream(&mut self) -> Result<()> {
        if self.case.stream {
            let bulk = self.ask(&Request::Bulk { bytes: BULK })?;
            self.bulks.push(bulk.ns);
            let ping_pong = self.ask(&Request::PingPong { count: PING_PONGS })?;
            self.ping_pongs.push(ping_pong.ns);
        }
        Ok(())
    }

    /// Megabytes in a second, from the nanoseconds of a transfer.
    pub(crate) fn megabytes_per_second(ns: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a round number of bytes")]
        let bytes = BULK as f64;
        bytes / ns * 1e3
    }

    fn ask(&mut self, request: &Request) -> Result<Measured> {
        writeln!(self.worker, "{}", serde_json::to_string(request)?)?;
        let mut line = String::new();
        if BufReader::new(&self.worker).read_line(&mut line)? == 0 {
            bail!(
                "the worker of {:?} failed: {}",
                self.case.name,
                self.daemon.output()
            );
        }
        Ok(serde_json::from_str(&line)?)
    }
}
