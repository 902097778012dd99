//! Measures one way after the other and keeps what came out, one value for each run.

use std::time::Duration;

use anyhow::Result;
use culvert_tests::{report::Pings, usage::cpu_seconds};

use crate::{
    Args,
    client::Latency,
    deployment::{DOWNLOAD, Deployment, ECHO, TRANSFER, Way, report},
    memory::Memory,
    transfer::Transferred,
};

/// Everything measured.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) memory: Vec<Memory>,
    pub(crate) direct: Measured,
    pub(crate) culvert: Measured,
    /// Transfers that did not arrive as they were sent, and why.
    pub(crate) lost: Vec<String>,
}

/// One way.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) connect_p50_us: Vec<f64>,
    pub(crate) connect_p99_us: Vec<f64>,
    pub(crate) download: Transfers,
    pub(crate) upload: Transfers,
    pub(crate) pings: Trips,
    pub(crate) pings_beside_stopped: Trips,
}

/// Transfers in one direction.
#[derive(Default)]
pub(crate) struct Transfers {
    /// Megabytes in a second.
    pub(crate) speed: Vec<f64>,
    /// Seconds of processor time for each GiB.
    pub(crate) server_cpu: Vec<f64>,
    pub(crate) agent_cpu: Vec<f64>,
}

/// Round trips on one connection.
#[derive(Default)]
pub(crate) struct Trips {
    pub(crate) p50_us: Vec<f64>,
    pub(crate) p99_us: Vec<f64>,
}

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
const PATIENCE: Duration = Duration::from_secs(20);

impl Results {
    /// One run of one way.
    pub(crate) fn measure(&mut self, way: Way, site: &Deployment, args: &Args) -> Result<()> {
        let measured = match way {
            Way::Direct => &mut self.direct,
            Way::Culvert => &mut self.culvert,
        };
        let line = format!("latency {} {}", way.to(ECHO), args.connects);
        let latency: Latency = report(site.client(&line)?)?;
        measured.connect_p50_us.push(latency.p50_us);
        measured.connect_p99_us.push(latency.p99_us);
        let download = measured
            .download
            .measure("download", way, site, args.bytes)?;
        let upload = measured.upload.measure("upload", way, site, args.bytes)?;
        self.lost.extend(download.into_iter().chain(upload));
        measured.pings.measure(way, site, args.pings)?;
        let stopped = stopped_reader(way, site)?;
        measured
            .pings_beside_stopped
            .measure(way, site, args.pings)?;
        drop(stopped);
        Ok(())
    }
}

impl Transfers {
    /// One transfer; says what was lost.
    fn measure(
        &mut self,
        kind: &str,
        way: Way,
        site: &Deployment,
        bytes: usize,
    ) -> Result<Option<String>> {
        let (server, agent) = (cpu_seconds(&site.server)?, cpu_seconds(&site.agent)?);
        let client = site.client(&format!("transfer {kind} {} {bytes}", way.to(TRANSFER)))?;
        let transferred = report::<Transferred>(client);
        let server = cpu_seconds(&site.server)? - server;
        let agent = cpu_seconds(&site.agent)? - agent;
        #[expect(clippy::cast_precision_loss, reason = "a number of bytes to divide")]
        let bytes = bytes as f64;
        let lost = match transferred {
            Ok(Transferred { seconds, lost }) => {
                self.speed.push(bytes / seconds / 1e6);
                self.server_cpu.push(server / bytes * GIB);
                self.agent_cpu.push(agent / bytes * GIB);
                lost
            }
            Err(error) => Some(format!("{error:#}")),
        };
        Ok(lost.map(|cause| format!("{way:?}, {kind}: {cause}")))
    }
}

impl Trips {
    fn measure(&mut self, way: Way, site: &Deployment, count: usize) -> Result<()> {
        let line = format!("ping --size 1024 --to {} --count", way.to(ECHO));
        // The first trips find everything cold, or a stopped reader's buffers not yet full.
        let _: Pings = report(site.probe(&format!("{line} {}", count / 10))?)?;
        let pings: Pings = report(site.probe(&format!("{line} {count}"))?)?;
        self.p50_us.push(pings.p50_us);
        self.p99_us.push(pings.p99_us);
        Ok(())
    }
}

/// A client that has begun a download and does not read it.
fn stopped_reader(way: Way, site: &Deployment) -> Result<culvert_tests::Daemon> {
    let line = format!("stall --seconds 120 --to {}", way.to(DOWNLOAD));
    let mut client = site.probe(&line)?;
    client.wait_for_line("stalled", PATIENCE)?;
    Ok(client)
}
