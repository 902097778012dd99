//! `probe stall`: a client that stops reading in the middle of a download.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::payload::{self, Header};

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// A `probe echo --hash`
    #[arg(long)]
    to: SocketAddr,
    /// How long not to read; says `stalled` when that begins
    #[arg(long)]
    seconds: u64,
    /// Bytes to ask for
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// Read and check the rest afterwards; says `intact` at the end
    #[arg(long)]
    resume: bool,
    /// Seconds that the rest may take
    #[arg(long, default_value_t = 60)]
    rest_seconds: u64,
}

const SEED: u64 = 7;

pub(crate) fn run(args: &Args) -> Result<()> {
    payload::runtime()?.block_on(async {
        let mut stream = TcpStream::connect(args.to).await.context("connect")?;
        Header {
            download: args.bytes,
            seed: SEED,
        }
        .write(&mut stream)
        .await?;
        stream.readable().await?;
        println!("stalled");
        sleep(Duration::from_secs(args.seconds)).await;
        if !args.resume {
            return Ok(());
        }
        timeout(Duration::from_secs(args.rest_seconds), rest(args, stream)).await?
    })
}

async fn rest(args: &Args, mut stream: TcpStream) -> Result<()> {
    stream.shutdown().await?;
    payload::check(&mut stream, args.bytes, SEED)
        .await
        .context("read the rest")?;
    let mut trailer = Vec::new();
    stream
        .read_to_end(&mut trailer)
        .await
        .context("read the trailer")?;
    println!("intact");
    Ok(())
}
