//! What is known of the cluster, on disk: a server that starts without an API server goes on with
//! the nodes and ports that it knew last.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use imbl::OrdMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::{OffsetDateTime, serde::rfc3339};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    claims::SavedClaims, cluster_addresses::ClusterAddresses, node::NodeFacts,
    ports_config::PortsConfig,
};
use crate::{
    model::NodeName,
    observability::chain,
    pki::{PrivateDir, StoreError},
};

const FILE: &str = "cluster.json";
/// Changes come in crowds; the disk need not see each.
const PAUSE: Duration = Duration::from_secs(1);
/// After a write that failed: the disk may have room again.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// A file that says the same is written anew after this, so that its age is that of what is known.
pub(super) const FRESH: Duration = Duration::from_mins(10);
/// The form that this build writes. One that reads another form starts without.
///
/// | form | since |
/// |---|---|
/// | 1 | what the rules of the server that wrote it had made of the Nodes |
/// | 2 | what the Nodes say, so that the rules of the one that reads it apply; the cluster's own addresses; who had an address first |
const VERSION: u32 = 2;

/// The file and the directory that it is in.
#[derive(Clone)]
pub(super) struct SavedFile {
    dir: PrivateDir,
}

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    version: u32,
    #[serde(with = "rfc3339")]
    pub(super) written_at: OffsetDateTime,
    #[serde(serialize_with = "values", deserialize_with = "nodes_by_name")]
    pub(super) nodes: OrdMap<NodeName, Arc<NodeFacts>>,
    pub(super) ports_config: Option<PortsConfig>,
    pub(super) cluster: ClusterAddresses,
    #[serde(serialize_with = "values", deserialize_with = "claims_by_address")]
    pub(super) claims: OrdMap<IpAddr, SavedClaims>,
}

/// Read first: a file of another version may have nothing else in common.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Saved {
    /// With nothing in it yet.
    pub(super) fn new(written_at: OffsetDateTime) -> Self {
        Self {
            version: VERSION,
            written_at,
            nodes: OrdMap::new(),
            ports_config: None,
            cluster: ClusterAddresses::default(),
            claims: OrdMap::new(),
        }
    }

    /// Whether a server that starts with either would do the same, and say that it is as old.
    fn is_as_good_as(&self, newer: &Self) -> bool {
        self.nodes == newer.nodes
            && self.ports_config == newer.ports_config
            && self.cluster == newer.cluster
            && self.claims == newer.claims
            && newer.written_at - self.written_at < FRESH
    }
}

impl SavedFile {
    /// Opens the directory, makes it where there is none.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        PrivateDir::create(dir).map(|dir| Self { dir })
    }

    /// What was saved; `None`, with a warning, where it cannot be used.
    pub(super) fn read(&self) -> Option<Saved> {
        let file = self.dir.file(FILE);
        let file = file.display();
        let content = match self.dir.read(FILE) {
            Ok(content) => content?,
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "starting without what is known of the cluster"
                );
                return None;
            }
        };
        let saved = match serde_json::from_slice::<Versioned>(&content) {
            Ok(Versioned { version }) if version != VERSION => {
                warn!(%file, version, "starting without the saved state of the cluster: another version of culvert wrote it");
                return None;
            }
            Ok(_) => serde_json::from_slice::<Saved>(&content),
            Err(error) => Err(error),
        };
        match saved {
            Ok(saved) => {
                info!(%file, saved_at = %saved.written_at, nodes = saved.nodes.len(), "starting with the saved state of the cluster");
                Some(saved)
            }
            Err(error) => {
                warn!(%file, %error, "starting without the saved state of the cluster: it is damaged");
                None
            }
        }
    }

    fn write(&self, saved: &Saved) -> Result<(), StoreError> {
        let content = serde_json::to_vec(saved).expect("facts are plain data");
        self.dir.write(FILE, &content)
    }

    /// Writes what is new of `saved_rx`, at most once a second, until nobody sends any more. What
    /// could not be written is tried again.
    pub(super) async fn keep(
        self,
        mut written: Option<Arc<Saved>>,
        mut saved_rx: watch::Receiver<Option<Arc<Saved>>>,
        shutdown: CancellationToken,
    ) {
        let mut failing = false;
        loop {
            tokio::select! {
                // What came before the end is still written.
                biased;
                changed = saved_rx.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
                () = sleep(TRY_AGAIN), if failing => {}
            }
            let Some(saved) = saved_rx.borrow_and_update().clone() else {
                continue;
            };
            if written
                .as_ref()
                .is_some_and(|old| old.is_as_good_as(&saved))
            {
                continue;
            }
            let (file, content) = (self.clone(), Arc::clone(&saved));
            match spawn_blocking(move || file.write(&content)).await {
                Ok(Ok(())) => {
                    debug!(nodes = saved.nodes.len(), "saved the state of the cluster");
                    written = Some(saved);
                    failing = false;
                }
                Ok(Err(error)) => {
                    if !failing {
                        let error = chain(&error);
                        warn!(
                            error,
                            "cannot save the state of the cluster: a start without the API server would be with an older one"
                        );
                    }
                    failing = true;
                }
                // The runtime is going down.
                Err(_) => return,
            }
            // At the end there is no later write to wait for.
            let _ = timeout(PAUSE, shutdown.cancelled()).await;
        }
    }
}

fn values<S, K, V>(map: &OrdMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    K: Ord,
    V: Serialize,
{
    serializer.collect_seq(map.values())
}

fn nodes_by_name<'a, D>(deserializer: D) -> Result<OrdMap<NodeName, Arc<NodeFacts>>, D::Error>
where
    D: Deserializer<'a>,
{
    let nodes = Vec::<NodeFacts>::deserialize(deserializer)?.into_iter();
    Ok(nodes
        .map(|facts| (facts.name.clone(), Arc::new(facts)))
        .collect())
}

fn claims_by_address<'a, D>(deserializer: D) -> Result<OrdMap<IpAddr, SavedClaims>, D::Error>
where
    D: Deserializer<'a>,
{
    let claims = Vec::<SavedClaims>::deserialize(deserializer)?.into_iter();
    Ok(claims.map(|claims| (claims.address, claims)).collect())
}

#[cfg(test)]
mod tests;
