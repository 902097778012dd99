//! The top-level tasks of a role. One that fails takes the process down with its reason: a server
//! without its accept loop must not look alive.

use std::{collections::HashMap, future::Future};

use anyhow::anyhow;
use tokio::task::{self, JoinSet};

/// Running tasks, each with a name for the report.
#[derive(Default)]
pub(super) struct Tasks {
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<task::Id, &'static str>,
}

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
        let spawned = self
            .running
            .spawn(async move { task.await.map_err(Into::into) });
        self.names.insert(spawned.id(), name);
    }

    /// Resolves when a task ends, which none does before it is told to: with the reason.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        match self.next().await {
            Some((name, error)) => error.unwrap_or_else(|| anyhow!("{name} ended unasked")),
            None => std::future::pending().await,
        }
    }

    /// Waits for all of them, now that they are told to end.
    pub(super) async fn finished(mut self) {
        while let Some((_, error)) = self.next().await {
            if let Some(error) = error {
                tracing::warn!(error = format!("{error:#}"), "while stopping");
            }
        }
    }

    /// The next task to end, and its error.
    async fn next(&mut self) -> Option<(&'static str, Option<anyhow::Error>)> {
        let ended = self.running.join_next_with_id().await?;
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let name = self.names.remove(&id).unwrap_or("a task");
        let error = match ended {
            Ok((_, Ok(()))) => None,
            Ok((_, Err(error))) => Some(error.context(format!("{name} failed"))),
            Err(error) => Some(anyhow!(error).context(format!("{name} panicked"))),
        };
        Some((name, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_reason_names_the_task() {
        let mut tasks = Tasks::default();
        tasks.spawn("standing by", std::future::pending());
        tasks.spawn("returning", async {});
        assert_eq!(tasks.failed().await.to_string(), "returning ended unasked");
        tasks.spawn("panicking", async { panic!("expected in this test") });
        assert_eq!(tasks.failed().await.to_string(), "panicking panicked");
        tasks.try_spawn("failing", async { Err(anyhow!("cause")) });
        let error = format!("{:#}", tasks.failed().await);
        assert_eq!(error, "failing failed: cause");
    }
}
