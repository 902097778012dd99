//! Transfers of bytes that were made before the clock starts and are checked after it has stopped.
//!
//! ```text
//! client ── request ──>                              target
//!        <── ready ──        both have their gigabyte
//!        ── go ──> <── bytes ── SHA-256, FIN ──      download
//!        ── bytes ──> <── got ── that was all ──> <── SHA-256, FIN ──       upload
//! ```
//! Nobody closes one direction before the other: konnectivity ends a connection for it.

use std::{
    fmt,
    io::{Read, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Barrier,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use socket2::Socket;

use crate::wire::To;

#[derive(ClapArgs)]
pub(crate) struct TargetArgs {
    bind: SocketAddr,
}

/// Of `transfer`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Transferred {
    /// From the first byte's departure to the last one's arrival.
    pub(crate) seconds: f64,
    /// Why the bytes that arrived are not those that were sent, if so.
    pub(crate) lost: Option<String>,
}

const DOWNLOAD: u8 = b'd';
const UPLOAD: u8 = b'u';
/// Sent by one end for the other to go on.
const SIGNAL: [u8; 1] = [b'!'];
const HASH: usize = 32;

/// Serves transfers until it is killed.
pub(crate) fn serve(args: &TargetArgs) -> Result<()> {
    let listener = TcpListener::bind(args.bind)?;
    println!("listening {}", args.bind);
    for client in listener.incoming() {
        // Ends with its client or with the program.
        let client = client?;
        thread::spawn(move || {
            if let Err(error) = answer(client) {
                eprintln!("target: {error:#}");
            }
        });
    }
    Ok(())
}

fn answer(mut client: TcpStream) -> Result<()> {
    client.set_nodelay(true)?;
    let (mut kind, mut size) = ([0], [0; 8]);
    client.read_exact(&mut kind)?;
    client.read_exact(&mut size)?;
    let size = usize::try_from(u64::from_be_bytes(size))?;
    match kind[0] {
        DOWNLOAD => {
            let bytes = made(size);
            client.write_all(&SIGNAL)?;
            client.read_exact(&mut [0])?;
            client.write_all(&bytes)?;
            client.write_all(&Sha256::digest(&bytes))?;
        }
        UPLOAD => {
            let mut bytes = empty(size);
            client.write_all(&SIGNAL)?;
            let arrived = fill(&mut client, &mut bytes)?;
            client.write_all(&SIGNAL)?;
            ensure!(arrived == size, "{arrived} of {size} bytes");
            let mut next = [0];
            client.read_exact(&mut next)?;
            ensure!(next == SIGNAL, "more than {size} bytes");
            client.write_all(&Sha256::digest(&bytes))?;
        }
        other => bail!("no such request: {other}"),
    }
    client.shutdown(Shutdown::Write)?;
    Ok(())
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    Download,
    Upload,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Download => "download",
            Self::Upload => "upload",
        })
    }
}

/// Carries `size` bytes on each of so many connections, at the same time.
pub(crate) fn run(
    direction: Direction,
    to: &To,
    size: usize,
    connections: usize,
) -> Result<Transferred> {
    let all_ready = Barrier::new(connections);
    thread::scope(|scope| {
        let one = || match direction {
            Direction::Download => download(to, size, &all_ready),
            Direction::Upload => upload(to, size, &all_ready),
        };
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
        let mut all = Transferred {
            seconds: 0.0,
            lost: None,
        };
        for thread in threads {
            let one = thread.join().expect("a client thread does not panic")?;
            all.seconds = all.seconds.max(one.seconds);
            all.lost = all.lost.or(one.lost);
        }
        Ok(all)
    })
}

/// Receives `size` bytes.
fn download(from: &To, size: usize, all_ready: &Barrier) -> Result<Transferred> {
    let mut bytes = empty(size);
    let target = request(from, DOWNLOAD, size);
    // Whoever fails must not keep the others waiting.
    all_ready.wait();
    let (mut target, started) = (target?, Instant::now());
    target.write_all(&SIGNAL)?;
    let arrived = fill(&mut target, &mut bytes)?;
    let seconds = started.elapsed().as_secs_f64();
    let mut sent = Vec::new();
    target.read_to_end(&mut sent)?;
    Ok(Transferred {
        seconds,
        lost: (arrived != size)
            .then(|| format!("{arrived} of {size} bytes arrived"))
            .or_else(|| different(&sent, &bytes)),
    })
}

/// Sends `size` bytes.
fn upload(to: &To, size: usize, all_ready: &Barrier) -> Result<Transferred> {
    let bytes = made(size);
    let target = request(to, UPLOAD, size);
    all_ready.wait();
    let (mut target, started) = (target?, Instant::now());
    target.write_all(&bytes)?;
    target
        .read_exact(&mut [0])
        .context("wait for the arrival")?;
    let seconds = started.elapsed().as_secs_f64();
    target.write_all(&SIGNAL)?;
    let mut arrived = Vec::new();
    target.read_to_end(&mut arrived)?;
    Ok(Transferred {
        seconds,
        lost: different(&arrived, &bytes),
    })
}

/// Connects and waits until the target is ready.
fn request(to: &To, kind: u8, size: usize) -> Result<Socket> {
    let mut target = to.open().context("connect")?;
    target.write_all(&[kind])?;
    target.write_all(&(size as u64).to_be_bytes())?;
    target.read_exact(&mut [0]).context("wait for the target")?;
    Ok(target)
}

/// What is wrong, if these bytes do not have that hash.
fn different(hash: &[u8], bytes: &[u8]) -> Option<String> {
    if hash.len() != HASH {
        return Some(format!("{} bytes of a hash arrived", hash.len()));
    }
    (Sha256::digest(bytes).as_slice() != hash).then(|| "other bytes arrived".to_owned())
}

/// Reads until `bytes` are full or the other end has closed.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match from.read(&mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn made(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    SmallRng::seed_from_u64(size as u64).fill_bytes(&mut bytes);
    bytes
}

/// Memory that the kernel has really given: its pages were written to.
fn empty(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    bytes.resize(size, 0xff);
    bytes
}
