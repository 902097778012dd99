//! `probe connect`: a number of connects, and what became of them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args as ClapArgs;
use culvert_tests::report::Connects;
use socket2::Socket;

use crate::client::{Failure, Options, greeting, peer};

#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// Connects of each thread
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Threads that connect at the same time
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Send a byte and read it back
    #[arg(long)]
    echo: bool,
    /// Read what the server says first
    #[arg(long)]
    greeting: bool,
    /// Keep every connection open so long, then do what was asked for on each
    #[arg(long, default_value_t = 0)]
    hold_seconds: u64,
    /// Start no connect after this time
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut total = Connects::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|_| scope.spawn(|| one_thread(args)))
            .collect();
        for thread in threads {
            total.merge(thread.join().expect("a client thread does not panic"));
        }
    });
    crate::report(&total)
}

fn one_thread(args: &Args) -> Connects {
    let mut counted = Connects::default();
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    let mut held = Vec::new();
    for _ in 0..args.count {
        if Instant::now() >= deadline {
            *counted
                .failed
                .entry("not tried in time".into())
                .or_default() += 1;
            continue;
        }
        let started = Instant::now();
        let opened = args.options.open();
        count_time(&mut counted, started);
        match opened {
            Ok(socket) if args.hold_seconds > 0 => held.push(socket),
            Ok(socket) => finish(args, &mut counted, &socket),
            Err(failure) => count_failure(&mut counted, &failure),
        }
    }
    if !held.is_empty() {
        eprintln!("holding {}", held.len());
        thread::sleep(Duration::from_secs(args.hold_seconds));
    }
    for socket in &held {
        finish(args, &mut counted, socket);
    }
    counted
}

fn finish(args: &Args, counted: &mut Connects, socket: &Socket) {
    match use_connection(args, counted, socket) {
        Ok(()) => counted.succeeded += 1,
        Err(failure) => count_failure(counted, &failure),
    }
}

fn use_connection(args: &Args, counted: &mut Connects, socket: &Socket) -> Result<(), Failure> {
    counted.peers.insert(peer(socket)?);
    if args.greeting {
        counted.greetings.insert(greeting(socket)?);
    }
    if args.echo {
        args.options.echo(socket)
    } else {
        Ok(())
    }
}

pub(crate) fn count_failure(counted: &mut Connects, failure: &Failure) {
    *counted.failed.entry(failure.cause()).or_default() += 1;
}

pub(crate) fn count_time(counted: &mut Connects, started: Instant) {
    counted.slowest_ms = counted
        .slowest_ms
        .max(started.elapsed().as_secs_f64() * 1000.0);
}
