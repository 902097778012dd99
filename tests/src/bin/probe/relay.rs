//! `probe relay`: a link that takes its time, in each direction.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Pieces on their way, each way: the link itself holds nobody up.
const QUEUE: usize = 4096;
const PIECE: usize = 64 * 1024;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Where to accept; says `listening` then
    #[arg(long)]
    bind: SocketAddr,
    /// Where to carry what is accepted
    #[arg(long)]
    to: SocketAddr,
    /// Milliseconds each way
    #[arg(long)]
    delay_ms: u64,
    /// When to end
    #[arg(long)]
    seconds: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // That time is over is the regular end.
    let time = Duration::from_secs(args.seconds);
    let ended = runtime.block_on(async { timeout(time, relay(args)).await });
    ended.unwrap_or(Ok(()))
}

async fn relay(args: &Args) -> Result<()> {
    let listener = TcpListener::bind(args.bind).await.context("bind")?;
    println!("listening");
    let delay = Duration::from_millis(args.delay_ms);
    loop {
        let (near, _) = listener.accept().await.context("accept")?;
        let to = args.to;
        tokio::spawn(async move {
            if let Ok(far) = TcpStream::connect(to).await {
                // Whoever sends small pieces is not to wait for the relay's own kernel.
                for socket in [&near, &far] {
                    drop(socket.set_nodelay(true));
                }
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                // One that ends takes the other with it.
                tokio::select! {
                    () = carry(near_in, far_out, delay) => {}
                    () = carry(far_in, near_out, delay) => {}
                }
            }
        });
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (piece_tx, mut piece_rx) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
    let read = async move {
        let mut buffer = vec![0; PIECE];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let piece = buffer[..count].to_vec();
            if piece_tx
                .send((Instant::now() + delay, piece))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = piece_rx.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
