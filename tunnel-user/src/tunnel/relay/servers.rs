//! The other servers of the control plane: whom to ask for a node, and the links to them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::seq::SliceRandom as _;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    link::{Link, RelayedConnection},
    request::NotRelayed,
};
use crate::{
    backoff::Backoff,
    model::{Mark, NodeName, ServerAddr},
    observability::metrics::{Carried, RelayMetrics},
    tunnel::{Client, Destination, DialError, FirstBytes, Memory, Settings},
};

/// A server that cannot be reached is left alone for so long at most: somebody waits for the others.
const LEFT_ALONE: Duration = Duration::from_secs(2);

/// What relaying needs.
pub struct RelayOptions {
    /// The other servers, as they come and go.
    pub servers: watch::Receiver<Vec<RelayServer>>,
    /// What proves this server to them; `None` until there is a certificate.
    pub tls: watch::Receiver<Option<Arc<ClientConfig>>>,
    /// The name that their certificates must have; by default the host that is dialled.
    pub server_name: Option<ServerName<'static>>,
    /// Limits of each link.
    pub settings: Settings,
    /// What the connections of this process may hold.
    pub memory: Memory,
    /// Keeps the redirect away from links.
    pub mark: Mark,
    /// Counts the bytes of this server's clients.
    pub carried: Carried,
    /// Counts their connections.
    pub metrics: RelayMetrics,
}

/// Another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayServer {
    /// Its id, another one after each start.
    pub id: String,
    /// Its agent port.
    pub address: ServerAddr,
}

/// Hands dials to other servers. Clones are the same.
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    options: RelayOptions,
    /// Who answered for a node last.
    holders: Mutex<HashMap<NodeName, String>>,
    links: Mutex<BTreeMap<String, Arc<Slot>>>,
    tasks: TaskTracker,
    end: CancellationToken,
}

/// The link to one server, if there is one. Whoever finds none opens it while others wait.
#[derive(Default)]
struct Slot(AsyncMutex<SlotState>);

#[derive(Default)]
struct SlotState {
    link: Option<Arc<Link>>,
    backoff: Option<(Backoff, Instant)>,
}

impl Relay {
    /// Opens nothing before there is something to relay.
    pub fn new(options: RelayOptions) -> Self {
        Self(Arc::new(Inner {
            options,
            holders: Mutex::default(),
            links: Mutex::default(),
            tasks: TaskTracker::new(),
            end: CancellationToken::new(),
        }))
    }

    /// Closes links to servers that have gone, until `shutdown` closes all.
    pub async fn run(self, shutdown: CancellationToken) {
        let Inner {
            options,
            tasks,
            end,
            ..
        } = &*self.0;
        let mut servers = options.servers.clone();
        loop {
            let present = servers.borrow_and_update().clone();
            let is_present = |id: &String| present.iter().any(|server| server.id == *id);
            self.links().retain(|id, _| is_present(id));
            self.holders().retain(|_, id| is_present(id));
            tokio::select! {
                Ok(()) = servers.changed() => {}
                () = shutdown.cancelled() => break,
            }
        }
        end.cancel();
        tasks.close();
        tasks.wait().await;
    }

    /// Has another server dial, the one that answered for the node last before all others.
    ///
    /// # Errors
    /// [`DialError::NoSession`] where none has a session, or can be reached. Then nothing of the first bytes has left.
    pub(in crate::tunnel) async fn dial(
        &self,
        node: &NodeName,
        destination: &Destination,
        client: Client,
        first: &mut FirstBytes<'_>,
    ) -> Result<RelayedConnection, DialError> {
        let options = &self.0.options;
        for server in self.in_order(node) {
            // Before the link: whoever waits for that is bounded, too.
            let share = options.memory.admit(client);
            let share = share.map_err(|refused| DialError::without_memory(refused, client))?;
            let Some(link) = self.link(&server).await else {
                continue;
            };
            let dialled = link.dial(node, destination, client, share, first).await;
            match dialled {
                // It may have dialled already, and what the client said is not said twice.
                Err(DialError::LinkEnded(_)) if !first.were_read() => {}
                Err(error) => return Err(error),
                Ok(Ok(connection)) => {
                    self.holders().insert(node.clone(), server.id);
                    options.metrics.asked.inc();
                    return Ok(connection);
                }
                Ok(Err(NotRelayed::Elsewhere)) => {}
                Ok(Err(NotRelayed::Failed { failure, message })) => {
                    return Err(DialError::Relayed {
                        server: server.address.to_string().into(),
                        failure,
                        message: message.into(),
                    });
                }
            }
        }
        self.holders().remove(node);
        Err(DialError::NoSession(node.clone()))
    }

    fn in_order(&self, node: &NodeName) -> Vec<RelayServer> {
        let mut servers = self.0.options.servers.borrow().clone();
        // Who knows nothing does not ask the same one each time.
        servers.shuffle(&mut rand::rng());
        let holder = self.holders().get(node).cloned();
        servers.sort_by_key(|server| Some(&server.id) != holder.as_ref());
        servers
    }

    /// The link to the server, opened if there is none; `None` if it cannot be reached, or could not a moment ago.
    async fn link(&self, server: &RelayServer) -> Option<Arc<Link>> {
        let slot = Arc::clone(self.links().entry(server.id.clone()).or_default());
        let mut state = slot.0.lock().await;
        if let Some(link) = state
            .link
            .as_ref()
            .filter(|link| link.takes_dials(&self.0.options))
        {
            return Some(Arc::clone(link));
        }
        let left_alone = state
            .backoff
            .as_ref()
            .is_some_and(|(_, until)| Instant::now() < *until);
        if left_alone {
            return None;
        }
        match Link::open(server, &self.0.options).await {
            Ok((link, io)) => {
                state.backoff = None;
                state.link = Some(Arc::clone(&link));
                let (inner, running) = (Arc::clone(&self.0), Arc::clone(&link));
                self.0.tasks.spawn(async move {
                    let end = inner.end.clone();
                    running.run(io, &inner.options, end).await;
                });
                Some(link)
            }
            Err(error) => {
                let mut backoff = state
                    .backoff
                    .take()
                    .map_or_else(|| Backoff::up_to(LEFT_ALONE), |(backoff, _)| backoff);
                let pause = backoff.after(Duration::ZERO);
                tracing::warn!(server = %server.address, id = server.id, error = format!("{error:#}"), ?pause, "cannot relay through a server");
                state.backoff = Some((backoff, Instant::now() + pause));
                None
            }
        }
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<NodeName, String>> {
        // Whole between any two operations, whatever panicked meanwhile; so are the links.
        self.0
            .holders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Slot>>> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
