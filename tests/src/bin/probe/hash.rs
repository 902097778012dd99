//! `probe hash`: random bytes both ways on many connections at once; every byte is compared.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args as ClapArgs;
use culvert_tests::report::Hashes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{At as _, Failure};
use crate::payload::{self, Header, Trailer};

#[derive(ClapArgs, Clone)]
pub(crate) struct Args {
    /// A `probe echo --hash`
    #[arg(long)]
    to: SocketAddr,
    /// Connections at the same time
    #[arg(long)]
    connections: u64,
    /// Smallest payload of a direction, in bytes
    #[arg(long, default_value_t = 0)]
    min: u64,
    /// Largest payload of a direction, in bytes
    #[arg(long, default_value_t = 1 << 20)]
    max: u64,
    /// Makes the sizes and the bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Give up what is not done by then
    #[arg(long)]
    seconds: u64,
}

pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(args.min <= args.max, "--min is larger than --max");
    let report = payload::runtime()?.block_on(all(args));
    crate::report(&report)
}

async fn all(args: Args) -> Hashes {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..args.connections {
        let transfer = Transfer::new(args.to, args.seed.wrapping_add(number), args.min..=args.max);
        let patience = Duration::from_secs(args.seconds);
        tasks.spawn(async move {
            let outcome = timeout(patience, transfer.run()).await;
            let cause = match outcome {
                Ok(done) => done.map_err(|failure| failure.cause()),
                Err(_late) => Err("not done in time".into()),
            };
            cause.map(|()| transfer.upload + transfer.download)
        });
    }
    let mut report = Hashes::default();
    while let Some(outcome) = tasks.join_next().await {
        match outcome.expect("a transfer does not panic") {
            Ok(bytes) => {
                report.intact += 1;
                report.bytes += bytes;
            }
            Err(cause) => *report.broken.entry(cause).or_default() += 1,
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    report
}

struct Transfer {
    to: SocketAddr,
    seed: u64,
    upload: u64,
    download: u64,
}

impl Transfer {
    fn new(to: SocketAddr, seed: u64, sizes: RangeInclusive<u64>) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let upload = random.random_range(sizes.clone());
        Self {
            to,
            seed,
            upload,
            download: random.random_range(sizes),
        }
    }

    async fn run(&self) -> Result<(), Failure> {
        let mut stream = TcpStream::connect(self.to).await.at("connect")?;
        let (mut reader, mut writer) = stream.split();
        let upload = async {
            let header = Header {
                download: self.download,
                seed: self.seed,
            };
            header.write(&mut writer).await.at("upload")?;
            let sent = payload::send(&mut writer, self.upload, !self.seed)
                .await
                .at("upload")?;
            writer.shutdown().await.at("half-close")?;
            Ok(sent)
        };
        let download = async {
            payload::check(&mut reader, self.download, self.seed)
                .await
                .at("download")?;
            let trailer = Trailer::read(&mut reader).await.at("trailer")?;
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).await.at("close")?;
            Ok((trailer, rest.len()))
        };
        let (sent, (received, rest)) = tokio::try_join!(upload, download)?;
        if received != sent || rest > 0 {
            let wrong = format!(
                "sent {}, arrived {}, {rest} too many",
                sent.length, received.length
            );
            return Err(std::io::Error::other(wrong)).at("upload");
        }
        Ok(())
    }
}
