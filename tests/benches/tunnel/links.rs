//! Links with long round trips: what one connection and sixteen carry over them, and what that costs in memory, through
//! Culvert and through konnectivity.
//!
//! ```text
//! client ── redirect, or konnectivity's socket ── server ── link (half a round trip each way) ── agent ── target
//! ```
//! The link delays, and does nothing else: it loses nothing and is as fast as the machine. It ends TCP on both sides,
//! as a proxy would, so TCP's own windows (`tcp_rmem`, congestion control) see no delay: on a real link they bound both
//! alike. Each cell begins with a fresh server and agent.

mod konnectivity;

use std::time::Duration;

use anyhow::Result;
use culvert_tests::{Daemon, usage::peak_kib};

use self::konnectivity::Konnectivity;
use crate::{
    client::Latency,
    deployment::{Deployment, ECHO, TRANSFER, Way, report},
    table::{median, verdict},
    transfer::{Direction, Transferred},
};

/// Milliseconds.
const ROUND_TRIPS: [u64; 5] = [0, 20, 50, 100, 200];
const CONNECTS: usize = 40;
const MIB: usize = 1 << 20;
/// Connections at a time, and what each carries.
const TRANSFERS: [(usize, usize); 2] = [(1, 128 * MIB), (16, 16 * MIB)];
const DIRECTIONS: [Direction; 2] = [Direction::Download, Direction::Upload];
/// Culvert is ahead if it is not slower by more than what single runs differ.
const NOISE: f64 = 1.05;

/// Prints the table; true if Culvert is ahead everywhere, and nothing was lost.
pub(crate) fn measure(runs: usize) -> Result<bool> {
    let mut rows = Vec::new();
    for round_trip in ROUND_TRIPS {
        let delay = Duration::from_millis(round_trip) / 2;
        let (mut theirs, mut ours) = (Measured::default(), Measured::default());
        for run in 1..=runs {
            eprintln!("{round_trip} ms, run {run} of {runs}");
            theirs.measure(&Peer::Konnectivity(Konnectivity::over(delay)?))?;
            ours.measure(&Peer::Culvert(Deployment::over(delay)?))?;
        }
        rows.push((round_trip, theirs, ours));
    }
    print(&rows, runs);
    let behind: Vec<_> = rows
        .iter()
        .flat_map(|(round_trip, theirs, ours)| behind(*round_trip, theirs, ours))
        .collect();
    println!(
        "\n{}: ahead of konnectivity at every point",
        verdict(behind.is_empty())
    );
    for point in &behind {
        println!("  {point}");
    }
    let lost: Vec<_> = rows.iter().flat_map(|(_, _, ours)| &ours.lost).collect();
    println!("{}: no byte lost", verdict(lost.is_empty()));
    for loss in &lost {
        println!("  {loss}");
    }
    Ok(behind.is_empty() && lost.is_empty())
}

/// Whose server and agent carry.
enum Peer {
    Konnectivity(Konnectivity),
    Culvert(Deployment),
}

/// One value for each run.
#[derive(Default)]
struct Measured {
    /// Milliseconds to connect and get one byte back.
    connect: Vec<f64>,
    /// Megabytes in a second: of each of [`TRANSFERS`], down and up.
    speeds: [[Vec<f64>; 2]; 2],
    /// MiB, the most that was resident.
    server: Vec<f64>,
    agent: Vec<f64>,
    lost: Vec<String>,
}

impl Peer {
    fn to(&self, port: u16) -> String {
        match self {
            Self::Konnectivity(site) => site.to(port),
            Self::Culvert(_) => Way::Culvert.to(port).to_string(),
        }
    }

    fn client(&self, line: &str) -> Result<Daemon> {
        match self {
            Self::Konnectivity(site) => site.client(line),
            Self::Culvert(site) => site.client(line),
        }
    }

    fn ends(&self) -> (&Daemon, &Daemon) {
        match self {
            Self::Konnectivity(site) => (&site.server, &site.agent),
            Self::Culvert(site) => (&site.server, &site.agent),
        }
    }
}

impl Measured {
    fn measure(&mut self, peer: &Peer) -> Result<()> {
        let line = format!("latency {} {CONNECTS}", peer.to(ECHO));
        let latency: Latency = report(peer.client(&line)?)?;
        self.connect.push(latency.p50_us / 1e3);
        for ((connections, bytes), speeds) in TRANSFERS.iter().zip(&mut self.speeds) {
            for (direction, speeds) in DIRECTIONS.iter().zip(speeds) {
                let to = peer.to(TRANSFER);
                let line = format!("transfer {direction} {to} {bytes} {connections}");
                let Transferred { seconds, lost } = report(peer.client(&line)?)?;
                #[expect(clippy::cast_precision_loss, reason = "a number of bytes to divide")]
                let all = (connections * bytes) as f64;
                speeds.push(all / seconds / 1e6);
                self.lost.extend(lost);
            }
        }
        let (server, agent) = peer.ends();
        self.server.push(peak_kib(server)? / 1024.0);
        self.agent.push(peak_kib(agent)? / 1024.0);
        Ok(())
    }

    fn speeds(&self) -> impl Iterator<Item = f64> {
        self.speeds.iter().flatten().map(|speed| median(speed))
    }
}

/// The points where Culvert is not ahead.
fn behind(round_trip: u64, theirs: &Measured, ours: &Measured) -> Vec<String> {
    let slower = median(&ours.connect) > median(&theirs.connect) * NOISE;
    let connect = slower.then(|| format!("{round_trip} ms: connect"));
    let names = TRANSFERS.iter().flat_map(|(connections, _)| {
        DIRECTIONS.map(|direction| format!("{round_trip} ms: {direction}, {connections} at a time"))
    });
    let speeds = names.zip(ours.speeds().zip(theirs.speeds()));
    let speeds = speeds
        .filter(|(_, (ours, theirs))| ours * NOISE < *theirs)
        .map(|(name, _)| name);
    connect.into_iter().chain(speeds).collect()
}

fn print(rows: &[(u64, Measured, Measured)], runs: usize) {
    println!("\nmedian of {runs} runs; konnectivity | culvert\n");
    println!(
        "| round trip, ms | connect + 1 byte, ms | download, MB/s | upload, MB/s | 16 downloads | 16 uploads | server's peak, MiB | agent's peak, MiB |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (round_trip, theirs, ours) in rows {
        let both = |theirs: f64, ours: f64, digits: usize| {
            format!("{theirs:.digits$} \\| {ours:.digits$}")
        };
        let speeds = theirs
            .speeds()
            .zip(ours.speeds())
            .map(|(theirs, ours)| both(theirs, ours, 0));
        let cells: Vec<_> =
            std::iter::once(both(median(&theirs.connect), median(&ours.connect), 1))
                .chain(speeds)
                .chain([
                    both(median(&theirs.server), median(&ours.server), 0),
                    both(median(&theirs.agent), median(&ours.agent), 0),
                ])
                .collect();
        println!("| {round_trip} | {} |", cells.join(" | "));
    }
}
