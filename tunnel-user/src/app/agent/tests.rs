use std::{path::Path, time::Duration};

use clap::Parser;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    time::timeout,
};

use super::*;
use crate::observability::{admin::socket_path, status::StatusReport};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    agent: AgentArgs,
}

fn args(dir: &Path, server: SocketAddr) -> AgentArgs {
    let pin = format!("sha256:{}", "ab".repeat(32));
    let (state, run) = (dir.join("state"), dir.join("run"));
    let line = format!(
        "agent --server {server} --state-dir {} --run-dir {} --node-name edge-1 --meta-port 0 \
         --token aaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaa --ca-hash {pin}",
        state.display(),
        run.display()
    );
    Line::parse_from(line.split(' ')).agent
}

async fn status(run_dir: &Path) -> Option<StatusReport> {
    let mut stream = UnixStream::connect(socket_path(run_dir)).await.ok()?;
    let request = b"GET /status HTTP/1.0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    Some(serde_json::from_str(body).unwrap())
}

/// Waits until the agent says this of its identity.
async fn until_identity_says(run_dir: &Path, text: &str) {
    let said = async {
        loop {
            let report = status(run_dir).await;
            let conditions = report.map(|report| report.conditions).unwrap_or_default();
            let identity = conditions.iter().find(|one| one.name == "identity");
            let reason = identity.and_then(|identity| identity.reason.as_deref());
            if reason.is_some_and(|reason| reason.contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, said).await.expect("said in time");
}

#[tokio::test]
async fn an_agent_that_cannot_enrol_yet_says_so_and_keeps_a_second_one_away() {
    let dir = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = closed.local_addr().unwrap();
    drop(closed);
    let args = args(dir.path(), server);
    let stop = Stop::default();
    let agent = tokio::spawn(run_until(args.clone(), stop.clone()));
    until_identity_says(
        &args.run_dir,
        &format!("cannot enrol yet: cannot reach the server {server}"),
    )
    .await;

    let second = run_until(args.clone(), Stop::default());
    let error = timeout(PATIENCE, second).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("already running"), "{error:#}");

    stop.graceful.cancel();
    let stopped = timeout(PATIENCE, agent).await.unwrap().unwrap();
    let error = stopped.unwrap_err().to_string();
    assert!(error.contains("stopped before"), "{error}");
    assert!(!socket_path(&args.run_dir).exists());
}
