//! Transfers of bytes that were made before the clock starts and are checked after it has stopped.
//!
//! ```text
//! client ── request ──>                              target
//!        <── ready ──        both have their gigabyte
//!        ── go ──> <── bytes ── SHA-256, FIN ──      download
//!        ── bytes, FIN ──> <── got, SHA-256 ──       upload
//! ```

use std::{
    io::{Read, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args as ClapArgs;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

#[derive(ClapArgs)]
pub(crate) struct TargetArgs {
    bind: SocketAddr,
}

/// Of `download` and `upload`.
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
const PATIENCE: Duration = Duration::from_mins(1);
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
            let more = client.read(&mut [0])?;
            client.write_all(&SIGNAL)?;
            ensure!(
                arrived == size && more == 0,
                "{arrived} of {size} bytes, then {more}"
            );
            client.write_all(&Sha256::digest(&bytes))?;
        }
        other => bail!("no such request: {other}"),
    }
    client.shutdown(Shutdown::Write)?;
    Ok(())
}

/// Receives `size` bytes.
pub(crate) fn download(from: SocketAddr, size: usize) -> Result<Transferred> {
    let mut bytes = empty(size);
    let mut target = request(from, DOWNLOAD, size)?;
    let started = Instant::now();
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
pub(crate) fn upload(to: SocketAddr, size: usize) -> Result<Transferred> {
    let bytes = made(size);
    let mut target = request(to, UPLOAD, size)?;
    let started = Instant::now();
    target.write_all(&bytes)?;
    target.shutdown(Shutdown::Write)?;
    target
        .read_exact(&mut [0])
        .context("wait for the arrival")?;
    let seconds = started.elapsed().as_secs_f64();
    let mut arrived = Vec::new();
    target.read_to_end(&mut arrived)?;
    Ok(Transferred {
        seconds,
        lost: different(&arrived, &bytes),
    })
}

/// Connects and waits until the target is ready.
fn request(to: SocketAddr, kind: u8, size: usize) -> Result<TcpStream> {
    let mut target = TcpStream::connect(to).context("connect")?;
    target.set_nodelay(true)?;
    target.set_read_timeout(Some(PATIENCE))?;
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
