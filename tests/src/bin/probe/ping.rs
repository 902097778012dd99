//! `probe ping`: round trips over one connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use culvert_tests::report::Pings;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// A `probe echo`
    #[arg(long)]
    to: SocketAddr,
    /// Round trips
    #[arg(long)]
    count: u64,
    /// Bytes of each
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Milliseconds between two
    #[arg(long, default_value_t = 0)]
    interval_ms: u64,
    /// Seconds after which a round trip counts as failed
    #[arg(long, default_value_t = 10)]
    timeout: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&args.to, Duration::from_secs(args.timeout))
        .with_context(|| format!("connect to {}", args.to))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(args.timeout)))?;
    let (sent, mut received) = (vec![0x2a; args.size], vec![0; args.size]);
    let mut trips = Vec::new();
    for number in 0..args.count {
        let started = Instant::now();
        stream
            .write_all(&sent)
            .with_context(|| format!("send ping {number}"))?;
        stream
            .read_exact(&mut received)
            .with_context(|| format!("receive ping {number}"))?;
        trips.push(started.elapsed());
        ensure!(sent == received, "ping {number}: other bytes came back");
        thread::sleep(Duration::from_millis(args.interval_ms));
    }
    crate::report(&summary(trips))
}

fn summary(mut trips: Vec<Duration>) -> Pings {
    trips.sort_unstable();
    let rank = |percent: usize| {
        let index = (trips.len() * percent / 100).min(trips.len().saturating_sub(1));
        trips
            .get(index)
            .map_or(0.0, |trip| trip.as_secs_f64() * 1e6)
    };
    Pings {
        count: trips.len() as u64,
        p50_us: rank(50),
        p90_us: rank(90),
        p99_us: rank(99),
        max_us: rank(100),
    }
}
