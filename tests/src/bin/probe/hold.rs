//! `probe hold`: connects at a steady rate, says a few words or nothing, and holds on for as long as it may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;
use culvert_tests::report::Held;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

const TICK: Duration = Duration::from_millis(10);
const TICKS: u32 = 100;
/// What one process holds at a time.
const MOST_OPEN: usize = 8_000;
const BYTE_EVERY: Duration = Duration::from_secs(1);
const CONNECT_TIME: Duration = Duration::from_secs(3);

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Address and port to connect to
    #[arg(long)]
    to: SocketAddr,
    /// Connects in a second
    #[arg(long)]
    rate: u32,
    /// At most so many connects
    #[arg(long, default_value_t = u32::MAX)]
    count: u32,
    /// When all that is held is let go
    #[arg(long)]
    seconds: u64,
    /// What to say first
    #[arg(long, default_value = "")]
    say: String,
    /// Say a byte of it each second
    #[arg(long)]
    drip: bool,
}

#[derive(Default)]
struct Counts {
    opened: AtomicU64,
    failed: AtomicU64,
    ended: AtomicU64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let counts = Arc::new(Counts::default());
    runtime.block_on(async {
        let end = Instant::now() + Duration::from_secs(args.seconds);
        tokio::select! {
            () = connect(args, &counts) => sleep_until(end).await,
            () = sleep_until(end) => {}
        }
    });
    crate::report(&Held {
        opened: counts.opened.load(Ordering::Relaxed),
        failed: counts.failed.load(Ordering::Relaxed),
        ended: counts.ended.load(Ordering::Relaxed),
    })
}

async fn connect(args: &Args, counts: &Arc<Counts>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let open = Arc::new(Semaphore::new(MOST_OPEN));
    for number in 0..args.count {
        if number % (args.rate / TICKS).max(1) == 0 {
            ticks.tick().await;
        }
        let Ok(place) = Arc::clone(&open).acquire_owned().await else {
            return;
        };
        let (to, say, counts) = (args.to, args.say.clone(), Arc::clone(counts));
        let drip = args.drip;
        tokio::spawn(async move {
            let Ok(Ok(stream)) = timeout(CONNECT_TIME, TcpStream::connect(to)).await else {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                return;
            };
            counts.opened.fetch_add(1, Ordering::Relaxed);
            hold(stream, &say, drip).await;
            counts.ended.fetch_add(1, Ordering::Relaxed);
            drop(place);
        });
    }
}

/// Until the other end has had enough.
async fn hold(mut stream: TcpStream, say: &str, drip: bool) {
    let (mut from, mut to) = stream.split();
    let said = async {
        let piece = if drip { 1 } else { say.len().max(1) };
        for piece in say.as_bytes().chunks(piece) {
            to.write_all(piece).await?;
            if drip {
                sleep(BYTE_EVERY).await;
            }
        }
        std::io::Result::Ok(())
    };
    let mut heard = Vec::new();
    let end = from.read_to_end(&mut heard);
    tokio::pin!(said, end);
    tokio::select! {
        _ = &mut end => {}
        said = &mut said => if said.is_ok() {
            let _ = end.await;
        },
    }
}
