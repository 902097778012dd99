//! `cargo xtask demo`: the whole path, step by step, in namespaces of its own.
//!
//! Two processes: the worker makes everything and shows it, the supervisor waits for its end or for a signal and
//! then removes what is left, so that nothing stays behind however the worker ended.

mod kubelet;
mod screen;
mod steps;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use culvert_tests::sweep;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let worker = std::env::args()
        .nth(1)
        .is_some_and(|argument| argument == "--worker");
    let outcome = if worker { steps::show() } else { supervise() };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn supervise() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let own = std::env::current_exe().context("find the own binary")?;
        let mut worker = Command::new(own)
            .arg("--worker")
            .spawn()
            .context("start the worker")?;
        let id = worker.id().context("the worker has just been started")?;
        let ended = tokio::select! {
            status = worker.wait() => Ok(status?),
            _ = interrupt.recv() => Err("interrupted"),
            _ = terminate.recv() => Err("terminated"),
            _ = hang_up.recv() => Err("the terminal is gone"),
        };
        // Ctrl-C reaches the worker as well; whoever comes first, it has ended after this.
        worker.kill().await.ok();
        sweep::after(id);
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => bail!("the demo did not get to its end ({status})"),
            Err(cause) => bail!("{cause}; everything is cleaned up"),
        }
    })
}
