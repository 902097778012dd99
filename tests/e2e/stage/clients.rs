//! What clients on the control plane do.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use culvert_tests::report::{Connects, parse};
use culvert_tests::{Launch, NetNs, handover, programs, until};
use serde::de::DeserializeOwned;

use super::{PATIENCE, Stage};

/// A connection that is captured and then reset, whichever call sees that first.
pub(crate) const RESET: [&str; 4] = [
    "connect ECONNRESET",
    "getpeername ECONNRESET",
    "echo ECONNRESET",
    "echo EPIPE",
];

impl Stage {
    /// A program whose connects are captured.
    pub(crate) fn client(&self, namespace: &NetNs, program: impl AsRef<Path>) -> Launch {
        self.site.client(namespace, program)
    }

    pub(crate) fn probe(&self, namespace: &NetNs, line: &str) -> Launch {
        self.client(namespace, programs::probe().unwrap())
            .words(line)
    }

    /// Runs a probe on the control plane and returns its report.
    pub(crate) fn report<T: DeserializeOwned>(&self, line: &str) -> T {
        let mut probe = self.probe(self.control(), line).start().unwrap();
        parse(&probe.succeed(PATIENCE * 2).unwrap()).unwrap()
    }

    /// Connects, echoes a byte, closes: how it failed, and how long that took.
    pub(crate) fn try_once(&self, to: &str) -> (Option<String>, Duration) {
        let report: Connects = self.report(&format!(
            "flood --to {to} --count 1 --seconds 60 --timeout-ms 20000"
        ));
        let took = Duration::from_secs_f64(report.slowest_ms / 1000.0);
        (report.failed.keys().next().cloned(), took)
    }

    #[track_caller]
    pub(crate) fn works(&self, to: &str) {
        assert_eq!(self.try_once(to).0, None, "{to}");
    }

    #[track_caller]
    pub(crate) fn fails(&self, to: &str) -> String {
        self.try_once(to).0.expect("a connect that fails")
    }

    /// The time that a connection took to be reset.
    #[track_caller]
    pub(crate) fn is_reset(&self, to: &str) -> Duration {
        let (end, took) = self.try_once(to);
        let end = end.expect("a connection that is reset");
        assert!(RESET.contains(&end.as_str()), "{to}: {end}");
        took
    }

    /// Waits until connects work.
    #[track_caller]
    pub(crate) fn eventually_works(&self, to: &str) {
        until("connects work", PATIENCE, || {
            Ok(self.try_once(to).0.is_none().then_some(()))
        })
        .unwrap();
    }

    /// Waits until connects fail in that way. Until then, nobody may answer them.
    #[track_caller]
    pub(crate) fn eventually_fails(&self, to: &str, outcome: &str) {
        let line = format!("connect --to {to} --echo --timeout-ms 500");
        until(outcome, PATIENCE, || {
            let report: Connects = self.report(&line);
            Ok(report.failed.contains_key(outcome).then_some(()))
        })
        .unwrap();
    }

    /// A connection from the control plane, for the test to use.
    pub(crate) fn connect(&self, to: &str) -> TcpStream {
        self.connect_from(self.control(), to)
    }

    /// A connection from that namespace.
    pub(crate) fn connect_from(&self, namespace: &NetNs, to: &str) -> TcpStream {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let path = self.path(&format!("give{number}"));
        let taker = UnixListener::bind(&path).unwrap();
        let mut probe = self
            .probe(namespace, &format!("dial --to {to}"))
            .arg("--give-to")
            .arg(&path)
            .start()
            .unwrap();
        probe.succeed(PATIENCE).unwrap();
        bounded(handover::take(&taker.accept().unwrap().0).unwrap())
    }

    /// A connection, and the target's end of it.
    pub(crate) fn pair(&self, target: &TcpListener) -> (TcpStream, TcpStream) {
        let client = self.connect(&target.local_addr().unwrap().to_string());
        (client, accept(target))
    }
}

/// The next connection.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    bounded(listener.accept().unwrap().0)
}

/// No test waits for ever.
fn bounded(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}
