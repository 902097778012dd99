//! A connection that a server has another one carry, next to one that it carries itself. On a real cluster, for servers
//! find each other by its Leases.
//!
//! ```text
//! client ── server ═══ NAT ═══ agent ── target                     a session of its own
//! client ── another server ═══ server ═══ NAT ═══ agent ── target  relayed
//! ```
//! All of it is on one machine: what a relay costs is the work of one more server, and of one more TLS connection.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Result, ensure};
use culvert_tests::{
    Daemon, Launch,
    cluster::{AnotherServer, Cluster, Directory, OwnCluster, wait_until},
    programs,
    report::Pings,
};
use serde_json::json;

use crate::{
    Args,
    client::Latency,
    deployment::{ECHO, TRANSFER, report, targets_at},
    table::{self, Row, row},
    transfer::Transferred,
};

const PATIENCE: Duration = Duration::from_mins(2);

/// What one way takes, a value for each run.
#[derive(Default)]
struct Measured {
    connect_p50_us: Vec<f64>,
    connect_p99_us: Vec<f64>,
    download: Vec<f64>,
    upload: Vec<f64>,
    ping_p50_us: Vec<f64>,
    ping_p99_us: Vec<f64>,
}

/// A cluster with Culvert and one server more, to which no agent comes.
struct Site<'a> {
    cluster: &'a Cluster,
    another: AnotherServer<'a>,
    _server: Daemon,
    _targets: Vec<Daemon>,
}

/// Prints the table.
pub(crate) fn measure(args: &Args) -> Result<()> {
    let directory = Directory::new(programs::target_directory()?.join("cluster-bench"))?;
    let cluster = OwnCluster::bring_up(&directory)?;
    let site = Site::on(&cluster)?;
    let (mut own, mut relayed) = (Measured::default(), Measured::default());
    for run in 1..=args.runs {
        for (way, measured) in [(Way::Own, &mut own), (Way::Relayed, &mut relayed)] {
            eprintln!("{way:?}, run {run} of {}", args.runs);
            measured.measure(&site, way, args)?;
        }
    }
    println!("\nmedian of {} runs [lowest..highest]\n", args.runs);
    table::print_rows(["own session", "relayed"], ROWS, (&own, &relayed));
    Ok(())
}

const ROWS: &[Row<Measured>] = &[
    row("connect + 1 byte echo, p50, us", 0, |m| &m.connect_p50_us),
    row("connect + 1 byte echo, p99, us", 0, |m| &m.connect_p99_us),
    row("download, MB/s", 0, |m| &m.download),
    row("upload, MB/s", 0, |m| &m.upload),
    row("1 KiB ping, p50, us", 0, |m| &m.ping_p50_us),
    row("1 KiB ping, p99, us", 0, |m| &m.ping_p99_us),
];

impl Measured {
    /// One run.
    fn measure(&mut self, site: &Site<'_>, way: Way, args: &Args) -> Result<()> {
        let client = |line: &str| {
            let own = std::env::current_exe()?;
            site.client(way, &own).arg("client").words(line).start()
        };
        let latency: Latency = report(client(&format!(
            "latency {} {}",
            site.to(ECHO),
            args.connects
        ))?)?;
        self.connect_p50_us.push(latency.p50_us);
        self.connect_p99_us.push(latency.p99_us);
        for (direction, speeds) in [
            ("download", &mut self.download),
            ("upload", &mut self.upload),
        ] {
            let line = format!("transfer {direction} {} {}", site.to(TRANSFER), args.bytes);
            let Transferred { seconds, lost } = report(client(&line)?)?;
            ensure!(lost.is_none(), "{direction}: {}", lost.unwrap_or_default());
            #[expect(clippy::cast_precision_loss, reason = "a number of bytes to divide")]
            speeds.push(args.bytes as f64 / seconds / 1e6);
        }
        let line = format!(
            "ping --size 1024 --to {} --count {}",
            site.to(ECHO),
            args.pings
        );
        let pings: Pings = report(site.client(way, &programs::probe()?).words(&line).start()?)?;
        self.ping_p50_us.push(pings.p50_us);
        self.ping_p99_us.push(pings.p99_us);
        Ok(())
    }
}

/// Whose session carries a client.
#[derive(Clone, Copy, Debug)]
enum Way {
    Own,
    Relayed,
}

impl<'a> Site<'a> {
    /// Installs Culvert, and waits until clients are carried either way.
    fn on(cluster: &'a Cluster) -> Result<Self> {
        cluster.install_culvert()?;
        let listed = [ECHO, TRANSFER].map(|port| at(port).to_string());
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "yurt-tunnel-server-cfg", "namespace": "kube-system" },
            "data": { "http-proxy-ports": listed.join(",") },
        });
        cluster.apply("yurt-tunnel-server-cfg", &config)?;
        let another = AnotherServer::new(cluster)?;
        let site = Self {
            _server: another.start()?,
            _targets: targets_at(cluster.lab().edge(0).namespace(), at)?,
            another,
            cluster,
        };
        for way in [Way::Own, Way::Relayed] {
            let line = format!("ping --size 1 --count 1 --to {}", site.to(ECHO));
            wait_until("a client is carried", PATIENCE, || {
                let probe = site.client(way, &programs::probe()?).words(&line);
                report::<Pings>(probe.start()?).map(Some)
            })?;
        }
        Ok(site)
    }

    fn to(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.cluster.edge(0).addresses()[0], at(port))
    }

    fn client(&self, way: Way, program: &Path) -> Launch {
        match way {
            Way::Own => self.cluster.control_plane().launch(program),
            Way::Relayed => self.another.launch(program),
        }
    }
}

/// Where kubelets are, targets cannot be.
fn at(port: u16) -> u16 {
    port + 10_000
}
