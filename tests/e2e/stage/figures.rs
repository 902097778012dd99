//! What server, agents and the kernel say of themselves.

use culvert_tests::{Daemon, NetNs, command};
use tunnel_user::observability::status::StatusReport;

use super::{Stage, end_of};

impl Stage {
    pub(crate) fn status(&self) -> StatusReport {
        serde_json::from_value(self.site.status().unwrap()).unwrap()
    }

    pub(crate) fn agent_status(&self, edge: usize) -> StatusReport {
        let run = self.path(&format!("agent{edge}")).join("run");
        let status = self.site.culvert().words("status --agent --json --run-dir");
        serde_json::from_str(&end_of(&status.arg(run)).unwrap()).unwrap()
    }

    /// A metric of the server: every series that begins so, together.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        metric(self.control(), 10265, &format!("culvert_server_{series}"))
    }

    /// A metric of an edge's agent.
    pub(crate) fn agent_metric(&self, edge: usize, series: &str) -> u64 {
        let edge = self.lab().edge(edge).namespace();
        metric(edge, 10266, &format!("culvert_agent_{series}"))
    }
}

fn metric(namespace: &NetNs, port: u16, series: &str) -> u64 {
    let url = format!("http://127.0.0.1:{port}/metrics");
    let mut curl = namespace.command("curl");
    let text = command::output_of(curl.args(["-sSf", &url]), "").unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(series));
    let values = lines.filter_map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

/// Resident memory of a program in KiB.
pub(crate) fn resident_kib(program: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// Descriptors that a program has.
pub(crate) fn open_files(program: &Daemon) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap();
    files.count()
}
