//! The top-level tasks of a role. One that fails takes the process down with its reason: a server
//! without its accept loop must not look alive.

use std::future::Future;

use anyhow::anyhow;
use tokio::task::{JoinError, JoinSet};

/// Running tasks, each with a name for the report.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<(&'static str, anyhow::Result<()>)>);

impl Tasks {
    /// Runs a task that cannot fail.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.try_spawn(name, async {
            task.await;
            Ok::<_, anyhow::Error>(())
        });
    }

    /// Runs a task that can fail.
    pub(super) fn try_spawn<E>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: Into<anyhow::Error> + 'static,
    {
        self.0
            .spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Resolves when a task ends, which none does before it is told to: with the reason.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(ended) => reason(ended).unwrap_or_else(|| anyhow!("a task ended unasked")),
            None => std::future::pending().await,
        }
    }

    /// Waits for all of them, now that they are told to end.
    pub(super) async fn finished(mut self) {
        while let Some(ended) = self.0.join_next().await {
            if let Some(error) = reason(ended) {
                tracing::warn!(error = format!("{error:#}"), "while stopping");
            }
        }
    }
}

fn reason(ended: Result<(&'static str, anyhow::Result<()>), JoinError>) -> Option<anyhow::Error> {
    match ended {
        Ok((_, Ok(()))) => None,
        Ok((name, Err(error))) => Some(error.context(format!("{name} failed"))),
        Err(error) => Some(anyhow!(error).context("a task panicked")),
    }
}
