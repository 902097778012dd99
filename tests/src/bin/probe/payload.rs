//! Random bytes that both ends can make from a number, and what is said about them.
//!
//! ```text
//! client ── header{download, seed} ── upload bytes ── FIN ──>
//!        <── download bytes made from seed ── trailer{SHA-256 and length of the upload} ── FIN ── server
//! ```
//! Both directions run at the same time; the trailer needs the client's FIN, so half-close has to work.

use std::io;

use anyhow::Result;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const CHUNK: usize = 64 * 1024;

/// What the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes that the server shall send.
    pub(crate) download: u64,
    /// What they are made from.
    pub(crate) seed: u64,
}

/// What the server received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) sha256: [u8; 32],
    pub(crate) length: u64,
}

impl Header {
    pub(crate) async fn write(self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_u64(self.download).await?;
        to.write_u64(self.seed).await
    }

    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        Ok(Self {
            download: from.read_u64().await?,
            seed: from.read_u64().await?,
        })
    }
}

impl Trailer {
    pub(crate) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.sha256).await?;
        to.write_u64(self.length).await
    }

    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut sha256 = [0; 32];
        from.read_exact(&mut sha256).await?;
        Ok(Self {
            sha256,
            length: from.read_u64().await?,
        })
    }
}

/// Sends `length` bytes made from `seed` and says what they were.
pub(crate) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    length: u64,
    seed: u64,
) -> io::Result<Trailer> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let chunk = &mut buffer[..chunk_of(left)];
        rand::Rng::fill_bytes(&mut random, chunk);
        hash.update(&*chunk);
        to.write_all(chunk).await?;
        left -= chunk.len() as u64;
    }
    Ok(Trailer {
        sha256: hash.finalize().into(),
        length,
    })
}

/// Reads exactly `length` bytes, which must be those made from `seed`.
pub(crate) async fn check(
    from: &mut (impl AsyncRead + Unpin),
    length: u64,
    seed: u64,
) -> io::Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut expected, mut received) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut left = length;
    while left > 0 {
        let size = chunk_of(left);
        rand::Rng::fill_bytes(&mut random, &mut expected[..size]);
        from.read_exact(&mut received[..size]).await?;
        if received[..size] != expected[..size] {
            return Err(io::Error::other("other bytes than were sent"));
        }
        left -= size as u64;
    }
    Ok(())
}

/// Reads to the end and says what came.
pub(crate) async fn receive_all(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Trailer> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        match from.read(&mut buffer).await? {
            0 => {
                return Ok(Trailer {
                    sha256: hash.finalize().into(),
                    length,
                });
            }
            count => {
                hash.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

/// Both ends fill whole chunks but for the last, so the same numbers come out.
fn chunk_of(left: u64) -> usize {
    usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))
}

/// A runtime for the programs that need thousands of connections.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}
