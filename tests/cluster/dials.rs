//! Single connects, most of them from the control plane, and what became of them.

use std::time::{Duration, Instant};

use anyhow::Result;
use culvert_tests::cluster::{Cluster, Machine};
use culvert_tests::report::{Connects, parse};
use culvert_tests::{Daemon, programs};

use crate::stage::PATIENCE;

/// What happens to a connect that nothing captures: the control plane has no route to the edge.
pub(crate) const NOT_CAPTURED: &str = "connect ENETUNREACH";

/// How a connect from the control plane that echoes a byte fails, and after how long.
pub(crate) fn failure(cluster: &Cluster, to: &str) -> (String, Duration) {
    let started = Instant::now();
    let report = connect(cluster.control_plane(), to, "--echo");
    let cause = report.failed.into_keys().next();
    (cause.unwrap_or_else(|| "none".into()), started.elapsed())
}

/// True if nothing captures connects to this target.
pub(crate) fn is_not_captured(cluster: &Cluster, to: &str) -> bool {
    is_not_captured_from(cluster.control_plane(), to)
}

/// The same, from another machine without a route to the edge.
pub(crate) fn is_not_captured_from(machine: &Machine, to: &str) -> bool {
    connect(machine, to, "").failed.contains_key(NOT_CAPTURED)
}

fn connect(from: &Machine, to: &str, flags: &str) -> Connects {
    let probe = from.launch(programs::probe().unwrap());
    let probe = probe.words("connect --to").arg(to).words(flags);
    let said = probe.start().unwrap().succeed(PATIENCE).unwrap();
    parse(&said).unwrap()
}

/// GETs a plain URL from the control plane.
pub(crate) fn get(cluster: &Cluster, url: &str) -> Result<String> {
    let curl = cluster.control_plane().launch("curl");
    let curl = curl
        .words("--silent --show-error --fail --max-time 5")
        .arg(url);
    curl.start()?.succeed(PATIENCE)
}

/// The certificate that a TLS server shows to whoever connects from there, for `openssl x509` to read.
pub(crate) fn shown_certificate(from: &Machine, address: &str) -> String {
    let client = from.launch("openssl");
    let client = client.words("s_client -showcerts -connect").arg(address);
    let mut client = client.start().unwrap();
    client.wait_for_line("END CERTIFICATE", PATIENCE).unwrap();
    client.answer()
}

/// A server that echoes, on the first edge.
pub(crate) fn echo(cluster: &Cluster, bind: &str) -> Daemon {
    let probe = cluster.edge(0).launch(programs::probe().unwrap());
    let mut echo = probe
        .words("echo --seconds 1000 --bind")
        .arg(bind)
        .start()
        .unwrap();
    echo.wait_for_line("listening", PATIENCE).unwrap();
    echo
}
