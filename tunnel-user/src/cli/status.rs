//! `culvert status`: asks a running server or agent over its admin socket.

mod render;
mod services;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::{ArgAction, Args};
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::observability::{admin::socket_path, status::StatusReport};

/// A process that does not answer within this time hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// More than a report of 100,000 nodes takes.
const MAX_REPORT: usize = 256 << 20;

/// What to ask, and how to print the answer.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Ask the agent on this machine, not the server
    #[arg(long, action = ArgAction::SetTrue)]
    pub agent: bool,

    /// Directory of the admin socket [default: /run/culvert, with --agent /run/culvert-agent]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "ready")]
    pub json: bool,

    /// Print only whether it is ready, and fail if not: for probes
    #[arg(long, action = ArgAction::SetTrue)]
    pub ready: bool,
}

/// Prints the report of a running server or agent.
pub async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let socket = socket_path(&args.run_dir());
    let report = tokio::time::timeout(TIMEOUT, fetch(&socket))
        .await
        .map_err(|_| anyhow!("no answer on {} within {TIMEOUT:?}", socket.display()))??;
    if args.ready {
        ready(&report)?;
        println!("ready");
    } else if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", render::table(&report));
    }
    Ok(())
}

/// Fails with the reasons why something is not ready.
fn ready(report: &StatusReport) -> anyhow::Result<()> {
    let wanting = report
        .conditions
        .iter()
        .filter(|condition| !condition.ready);
    let reasons: Vec<_> = wanting
        .map(|condition| {
            let reason = condition.reason.as_deref().unwrap_or("no reason given");
            format!("{}: {reason}", condition.name)
        })
        .collect();
    if reasons.is_empty() {
        return Ok(());
    }
    bail!("not ready: {}", reasons.join("; "))
}

impl StatusArgs {
    fn run_dir(&self) -> PathBuf {
        let default = if self.agent {
            "/run/culvert-agent"
        } else {
            "/run/culvert"
        };
        self.run_dir.clone().unwrap_or_else(|| default.into())
    }
}

async fn fetch(socket: &Path) -> anyhow::Result<StatusReport> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| unreachable_socket(socket, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let request = Request::get("/status")
            .header(HOST, "culvert")
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            bail!("{} answered {}", socket.display(), answer.status());
        }
        let body = Limited::new(answer.into_body(), MAX_REPORT)
            .collect()
            .await
            .map_err(|error| anyhow!(error))?;
        serde_json::from_slice(&body.to_bytes())
            .context("the report is not understood: is another version of culvert running?")
    };
    let driven = async {
        // Its end shows as an error of the exchange.
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        report = exchange => report,
        never = driven => match never {},
    }
}

fn unreachable_socket(socket: &Path, error: io::Error) -> anyhow::Error {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow!(
            "nothing is running behind {socket}: start `culvert server` or `culvert agent`, or name \
             the --run-dir of a running one (--agent for the agent's default)"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!("this user may not open {socket}: run `culvert status` as root")
        }
        _ => anyhow!(error).context(format!("cannot open {socket}")),
    }
}
