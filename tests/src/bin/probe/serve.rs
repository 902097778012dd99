//! `probe echo`: the servers that stand behind a node.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::payload::{self, Header};

#[derive(ClapArgs, Clone)]
pub(crate) struct Args {
    /// Where to listen
    #[arg(long)]
    bind: SocketAddr,
    /// End after this time
    #[arg(long)]
    seconds: u64,
    /// Say this line first, then echo
    #[arg(long, value_name = "LINE")]
    speak_first: Option<String>,
    /// Answer `probe hash` and `probe stall`
    #[arg(long, conflicts_with_all = ["speak_first", "stall"])]
    hash: bool,
    /// Accept and never read
    #[arg(long, conflicts_with = "speak_first")]
    stall: bool,
}

/// More than a flood can have waiting at once.
const BACKLOG: u32 = 4096;

pub(crate) fn run(args: Args) -> Result<()> {
    payload::runtime()?.block_on(async {
        let listener = listen(args.bind).with_context(|| format!("listen on {}", args.bind))?;
        println!("listening {}", listener.local_addr()?);
        let life = Duration::from_secs(args.seconds);
        // The end of the time is the ordinary end.
        timeout(life, accept(listener, args))
            .await
            .unwrap_or(Ok(()))
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, args: Args) -> Result<()> {
    loop {
        let (stream, client) = listener.accept().await.context("accept")?;
        let args = args.clone();
        // Ends with its client or with the program; nobody waits for one connection of a test server.
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &args).await {
                eprintln!("{client}: {error}");
            }
        });
    }
}

async fn serve(mut stream: TcpStream, args: &Args) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if args.hash {
        return hash(stream).await;
    }
    if args.stall {
        sleep(Duration::from_secs(args.seconds)).await;
        return Ok(());
    }
    if let Some(line) = &args.speak_first {
        stream.write_all(format!("{line}\n").as_bytes()).await?;
    }
    echo(stream).await
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer).await? {
            0 => return writer.shutdown().await,
            count => writer.write_all(&buffer[..count]).await?,
        }
    }
}

async fn hash(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let header = Header::read(&mut reader).await?;
    let (received, _sent) = tokio::try_join!(
        payload::receive_all(&mut reader),
        payload::send(&mut writer, header.download, header.seed),
    )?;
    received.write(&mut writer).await?;
    writer.shutdown().await
}
