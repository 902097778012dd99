//! What it costs that one node of many changes, from the Node object to the kernel's table: 100 changes a second, one
//! after the other, as when a cluster is rolled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use culvert_tests::{Cgroup, PinRoot};
use serde_json::json;
use tunnel_user::kubernetes::source::Rehearsal;
use tunnel_user::model::{GatePolicy, Snapshot};
use tunnel_user::redirect::{NodeMode, Options, Redirect, TableBuilder};

#[derive(Parser)]
struct Args {
    /// Nodes; each has an IPv4 and an IPv6 address
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 10_000])]
    nodes: Vec<u32>,
    /// Changes in a second
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Seconds for which they come
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Given by `cargo bench` to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// The time of each step of each change.
#[derive(Default)]
struct Measured {
    snapshot: Vec<Duration>,
    table: Vec<Duration>,
    kernel: Vec<Duration>,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench nodes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    println!(
        "| nodes | tables | Node to snapshot, us | table, us | kernel, us | from the change to the map, us, p50 and p99 | processor, ms for 100 changes |"
    );
    println!("|--:|---|--:|--:|--:|--:|--:|");
    let cases = args.nodes.iter();
    for (&count, reads) in cases.flat_map(|count| [(count, true), (count, false)]) {
        let measured = change(count, reads, args)?;
        let whole: Vec<_> = (0..measured.kernel.len())
            .map(|i| measured.snapshot[i] + measured.table[i] + measured.kernel[i])
            .collect();
        let busy: Duration = whole.iter().sum();
        println!(
            "| {count} | {} | {:.0} | {:.0} | {:.0} | {:.0}, {:.0} | {:.0} |",
            if reads {
                "read each time"
            } else {
                "remembered"
            },
            part(&measured.snapshot, 50),
            part(&measured.table, 50),
            part(&measured.kernel, 50),
            part(&whole, 50),
            part(&whole, 99),
            1e5 * busy.as_secs_f64() / f64::from(args.rate * args.seconds),
        );
    }
    Ok(())
}

/// `reads`: the kernel's tables are read for each change, as when another server may have written them.
fn change(count: u32, reads: bool, args: &Args) -> Result<Measured> {
    let (cgroup, pins) = (Cgroup::new("bench")?, PinRoot::new()?);
    let mut redirect = Redirect::install(&Options {
        cgroup: Some(cgroup.path().to_owned()),
        pin_root: pins.path().to_owned(),
        ..Options::default()
    })?;
    let mut source = Rehearsal::new();
    for number in 0..count {
        source.hear(&node(number, number))?;
    }
    let (own, mut tables) = (Arc::default(), TableBuilder::new(GatePolicy::Bypass));
    let mut table = |snapshot: &Arc<Snapshot>| tables.build(snapshot, &own, |_| NodeMode::Capture);
    redirect.apply(&table(&source.publish()))?;
    let mut measured = Measured::default();
    let (began, pause) = (Instant::now(), Duration::from_secs(1) / args.rate);
    for change in 0..args.rate * args.seconds {
        sleep((pause * change).saturating_sub(began.elapsed()));
        // Addresses that nobody had.
        let node = node(change % count, count + change);
        let started = Instant::now();
        source.hear(&node)?;
        let snapshot = source.publish();
        let (has_snapshot, table) = (started.elapsed(), table(&snapshot));
        let has_table = started.elapsed();
        if reads {
            redirect.forget();
        }
        let changes = redirect.apply(&table)?;
        measured
            .kernel
            .push(started.elapsed().saturating_sub(has_table));
        measured.table.push(has_table.saturating_sub(has_snapshot));
        measured.snapshot.push(has_snapshot);
        ensure!(
            changes.nodes_added == 2 && changes.nodes_removed == 2,
            "{changes:?}"
        );
    }
    drop(redirect);
    Ok(measured)
}

/// As the API server writes it.
fn node(number: u32, address: u32) -> Vec<u8> {
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + address);
    let v6 = Ipv6Addr::from_bits((0xfd00_0078 << 96) + u128::from(address) + 1);
    let addresses = [IpAddr::V4(v4), IpAddr::V6(v6)];
    let addresses = addresses.map(|ip| json!({ "type": "InternalIP", "address": ip }));
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": format!("edge-{number:05}"),
            "labels": {
                "kubernetes.io/hostname": format!("edge-{number:05}"),
                "openyurt.io/is-edge-worker": "true",
            },
        },
        "spec": { "podCIDR": Ipv4Addr::from_bits((172 << 24) + (number << 8)).to_string() + "/24" },
        "status": {
            "addresses": addresses,
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
        },
    });
    node.to_string().into_bytes()
}

/// Microseconds that so many percent of the times do not exceed.
fn part(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let place = (times.len() - 1) * percent / 100;
    times[place].as_secs_f64() * 1e6
}
