//! `probe strangers`: connects at a steady rate. One in two says nothing and holds on for as long as it may, the
//! others send what is no TLS and wait for the answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use culvert_tests::report;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

const TICK: Duration = Duration::from_millis(10);
const TICKS_PER_SECOND: u32 = 100;
/// What one process holds at a time: well below the usual hard limit of descriptors.
const MOST_OPEN: usize = 12_000;
const CONNECT_TIME: Duration = Duration::from_secs(3);
const GARBAGE: &[u8] = b"GET / HTTP/1.1\r\nHost: culvert\r\n\r\n";

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Address and port to connect to
    #[arg(long)]
    to: SocketAddr,
    /// Local addresses, taken in turn
    #[arg(long, required = true)]
    from: Vec<IpAddr>,
    /// Connects in a second
    #[arg(long)]
    rate: u32,
    /// How long; SIGTERM ends it earlier. Both end with a report
    #[arg(long)]
    seconds: u64,
}

#[derive(Default)]
struct Counts {
    knocked: AtomicU64,
    failed: AtomicU64,
    left_out: AtomicU64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let counts = Arc::new(Counts::default());
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("catch SIGTERM")?;
        tokio::select! {
            () = knock(args, &counts) => {}
            () = sleep(Duration::from_secs(args.seconds)) => {}
            _ = terminate.recv() => {}
        }
        anyhow::Ok(())
    })?;
    crate::report(&report::Strangers {
        knocked: counts.knocked.load(Ordering::Relaxed),
        failed: counts.failed.load(Ordering::Relaxed),
        left_out: counts.left_out.load(Ordering::Relaxed),
    })
}

async fn knock(args: &Args, counts: &Arc<Counts>) {
    let mut ticks = interval(TICK);
    // What a busy machine could not do is done later: the rate holds over a second.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let open = Arc::new(Semaphore::new(MOST_OPEN));
    let mut sources = args.from.iter().copied().cycle();
    for number in 0_u64.. {
        if number % u64::from((args.rate / TICKS_PER_SECOND).max(1)) == 0 {
            ticks.tick().await;
        }
        let source = sources.next().expect("clap wants at least one address");
        let Ok(place) = Arc::clone(&open).try_acquire_owned() else {
            counts.left_out.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (to, counts) = (args.to, Arc::clone(counts));
        tokio::spawn(async move {
            match timeout(CONNECT_TIME, connect(source, to)).await {
                Ok(Ok(stream)) => {
                    counts.knocked.fetch_add(1, Ordering::Relaxed);
                    stay(stream, number % 2 == 0).await;
                }
                Ok(Err(_)) | Err(_) => {
                    counts.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            drop(place);
        });
    }
}

async fn connect(source: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(to).await
}

/// How it ends is the server's affair.
async fn stay(mut stream: TcpStream, silent: bool) {
    if !silent {
        let _ = stream.write_all(GARBAGE).await;
    }
    let _ = stream.read_to_end(&mut Vec::new()).await;
}
