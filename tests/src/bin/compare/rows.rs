//! What is measured. A row is a name, what it means, and how it is measured on either tunnel.

mod callers;
mod crash;
mod daily;
mod installation;
mod link;
mod memory;
mod names;
mod observers;
mod ports;
mod reach;
mod stalled;
mod transfers;

use anyhow::Result;

use crate::stage::Stage;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// A sentence for whoever reads the table.
    pub(crate) meaning: &'static str,
    /// The cell. An error is one as well: the tunnel did not do it.
    pub(crate) measure: fn(&Stage) -> Result<String>,
    /// Others need what it does.
    pub(crate) always: bool,
}

/// In the order in which they are measured: what changes the network first, what breaks the server last.
pub(crate) const ROWS: &[Row] = &[
    reach::ROUTE,
    installation::STEPS,
    memory::IDLE,
    daily::LOGS,
    daily::FOLLOW,
    daily::EXEC,
    daily::TERMINAL,
    daily::ATTACH,
    daily::PORT_FORWARD,
    transfers::COPY,
    transfers::OUT,
    reach::PROXY_PATH,
    reach::POD,
    callers::NOBODY,
    callers::CERTIFICATE,
    names::HTTPS,
    names::HTTP,
    names::STRANGER,
    observers::PROMETHEUS,
    observers::METRICS_SERVER,
    ports::EXTRA,
    stalled::READER,
    memory::MOST,
    link::BLACK_HOLE,
    crash::RESTARTED,
    crash::KILLED,
];

impl Row {
    /// The cell for this tunnel; an error only if the cluster itself does not work.
    pub(crate) fn result(&self, stage: &Stage) -> Result<String> {
        if self.name != reach::ROUTE.name {
            stage.settle()?;
        }
        eprintln!("{}: {} ...", stage.tunnel.name, self.name);
        let cell = (self.measure)(stage).unwrap_or_else(|error| fails(&format!("{error:#}")));
        eprintln!("{}: {}: {cell}", stage.tunnel.name, self.name);
        Ok(cell)
    }
}

/// An error in a cell: its last line, where programs say what was wrong.
fn fails(error: &str) -> String {
    let last = error.trim().lines().last().unwrap_or_default();
    let short: String = last.chars().take(200).collect();
    format!("**fails**: {short}")
}
