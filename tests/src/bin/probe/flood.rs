//! `probe flood`: short connections without a pause, to see whether any fails while something changes.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use culvert_tests::report::Connects;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{At as _, Options, echo_of, get, peer};
use crate::connect::{count_failure, count_time};

#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// How long; SIGTERM ends it earlier, with a report
    #[arg(long)]
    seconds: u64,
    /// At most so many connections per thread
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Threads that connect at the same time
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Milliseconds between two connections of a thread
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Send nothing on the connections
    #[arg(long)]
    no_echo: bool,
    /// End every connection with a reset
    #[arg(long)]
    reset: bool,
    /// Instead of an echo, ask for this path by HTTP
    #[arg(long, value_name = "PATH", conflicts_with = "no_echo")]
    http: Option<String>,
    /// Instead of one byte, have the content of this file echoed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_echo", "http"])]
    say: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let stop = stop_on_sigterm()?;
    let say = args.say.as_ref().map(fs::read).transpose();
    let say = say.context("read the file of --say")?;
    let announced = AtomicBool::new(false);
    let mut total = Connects::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|_| scope.spawn(|| one_thread(args, say.as_deref(), stop, &announced)))
            .collect();
        for thread in threads {
            total.merge(thread.join().expect("a client thread does not panic"));
        }
    });
    crate::report(&total)
}

fn one_thread(
    args: &Args,
    say: Option<&[u8]>,
    stop: &AtomicBool,
    announced: &AtomicBool,
) -> Connects {
    let mut counted = Connects::default();
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    let mut left = args.count;
    while left > 0 && Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
        left -= 1;
        let started = Instant::now();
        let outcome = args.options.open().and_then(|socket| {
            counted.peers.insert(peer(&socket)?);
            if args.reset {
                socket.set_linger(Some(Duration::ZERO)).at("linger")?;
            }
            match (&args.http, say) {
                (Some(path), _) => get(&socket, path),
                (None, Some(say)) => echo_of(&socket, say),
                (None, None) if args.no_echo => Ok(()),
                (None, None) => args.options.echo(&socket),
            }
        });
        count_time(&mut counted, started);
        match outcome {
            Ok(()) => {
                counted.succeeded += 1;
                if !announced.swap(true, Ordering::Relaxed) {
                    eprintln!("flooding");
                }
            }
            Err(failure) => count_failure(&mut counted, &failure),
        }
        thread::sleep(Duration::from_millis(args.pause_ms));
    }
    counted
}

/// The flag that SIGTERM sets. Both it and the thread that waits live as long as the program.
fn stop_on_sigterm() -> Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut terminate = {
        let _inside = runtime.enter();
        signal(SignalKind::terminate()).context("catch SIGTERM")?
    };
    thread::spawn(move || {
        runtime.block_on(terminate.recv());
        STOP.store(true, Ordering::Relaxed);
    });
    Ok(&STOP)
}
