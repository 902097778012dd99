//! What a server waits for before it takes clients: it must not do worse than the one before it.

use std::{future::pending, time::Duration};

use anyhow::bail;
use tokio::time::{sleep, timeout};

use super::Server;
use crate::{app::signals::Stop, model::NodeName, tunnel::server::Sessions};

/// How long a successor waits for the agents of its predecessor before it takes clients.
const AGENTS_COME: Duration = Duration::from_secs(10);
/// How long a successor waits until it knows the nodes and has a certificate that agents take: its
/// predecessor has patience for a minute.
const ABLE: Duration = Duration::from_secs(30);

impl Server {
    /// A table that is written before nodes are known would take every node away that a server
    /// before this one had; and agents that leave that one must not come in vain. False if this
    /// server is told to stop meanwhile.
    pub(super) async fn until_able(
        &mut self,
        takes_over: bool,
        stop: &Stop,
    ) -> anyhow::Result<bool> {
        let platform = &self.components.platform;
        let (known, certified) = (platform.known.clone(), platform.certified.clone());
        let able = async {
            known.await;
            if takes_over {
                certified.await;
            }
        };
        let given_up = async {
            if takes_over {
                sleep(ABLE).await;
            } else {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = able => Ok(true),
            () = given_up => bail!(
                "not able to take over ({}): the server that runs goes on",
                self.components.readiness.report(),
            ),
            () = stop.graceful.cancelled() => Ok(false),
            error = self.tasks.failed() => Err(error),
        }
    }

    pub(super) async fn until_agents_come(&self, nodes: &[NodeName], stop: &Stop) {
        tokio::select! {
            come = timeout(AGENTS_COME, all_have_sessions(&self.components.sessions, nodes)) => {
                if come.is_err() {
                    let missing = missing(&self.components.sessions, nodes);
                    tracing::warn!(?missing, "taking over without the sessions of some nodes");
                }
            }
            () = stop.graceful.cancelled() => {}
        }
    }
}

async fn all_have_sessions(sessions: &Sessions, nodes: &[NodeName]) {
    let mut changes = sessions.changes();
    while !missing(sessions, nodes).is_empty() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn missing<'a>(sessions: &Sessions, nodes: &'a [NodeName]) -> Vec<&'a str> {
    let missing = nodes.iter().filter(|node| !sessions.has(node));
    missing.map(NodeName::as_str).collect()
}
