//! `probe race`: connects to random targets as fast as it can. The server says which target the
//! kernel told it; another than the one that was dialled is the worst error there is.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use clap::Args as ClapArgs;
use culvert_tests::report::Race;
use rand::RngExt as _;
use socket2::Socket;

use crate::client::{At as _, Failure, Options};

#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// Targets: so many addresses from `--to` on
    #[arg(long)]
    targets: u32,
    /// Connects of all threads together
    #[arg(long)]
    count: u64,
    /// Threads that connect at the same time
    #[arg(long, default_value_t = 16)]
    threads: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let begun = AtomicU64::new(0);
    let mut total = Race::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|_| scope.spawn(|| one_thread(args, &begun)))
            .collect();
        for thread in threads {
            let counted = thread.join().expect("a client thread does not panic");
            total.right += counted.right;
            total.wrong += counted.wrong;
            for (cause, count) in counted.failed {
                *total.failed.entry(cause).or_default() += count;
            }
        }
    });
    crate::report(&total)
}

fn one_thread(args: &Args, begun: &AtomicU64) -> Race {
    let mut counted = Race::default();
    let mut random = rand::rng();
    while begun.fetch_add(1, Ordering::Relaxed) < args.count {
        let target = target(args, random.random_range(0..args.targets));
        match heard(&args.options, target) {
            Ok(heard) if heard == target.to_string() => counted.right += 1,
            Ok(heard) if heard.is_empty() => {
                *counted.failed.entry("closed".to_owned()).or_default() += 1;
            }
            Ok(heard) => {
                eprintln!("dialled {target}, heard {heard:?}");
                counted.wrong += 1;
            }
            Err(failure) => *counted.failed.entry(failure.cause()).or_default() += 1,
        }
    }
    counted
}

fn target(args: &Args, offset: u32) -> SocketAddr {
    match args.options.to {
        SocketAddr::V4(first) => {
            let ip = Ipv4Addr::from_bits(first.ip().to_bits() + offset);
            SocketAddr::new(ip.into(), first.port())
        }
        v6 @ SocketAddr::V6(_) => v6,
    }
}

/// What the server says, which may be nothing.
fn heard(options: &Options, target: SocketAddr) -> Result<String, Failure> {
    let mut options = options.clone();
    options.to = target;
    let mut socket: Socket = options.open()?;
    // No port stays behind in TIME_WAIT.
    socket.set_linger(Some(Duration::ZERO)).at("socket")?;
    let mut said = String::new();
    match socket.read_to_string(&mut said) {
        // With data unread on its side, the server's close is a reset.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        other => other.map(drop),
    }
    .at("read")?;
    Ok(said.trim().to_owned())
}
