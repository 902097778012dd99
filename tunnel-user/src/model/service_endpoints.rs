//! Services of the cluster that lead to nodes, as a source tells them.

use std::{fmt, net::SocketAddr, sync::Arc};

use tokio::sync::watch;

/// One port of a Service at one of its `ClusterIP`s, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoints {
    /// What clients dial.
    pub cluster: SocketAddr,
    /// Whose it is.
    pub service: ServiceName,
    /// Clients keep to one endpoint.
    pub affinity: bool,
    /// Where it leads, in order, each once.
    pub endpoints: Vec<SocketAddr>,
}

/// Names a Service of the cluster, as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The Service of this name in this namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.0
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }
}

/// Follows those that may lead to nodes, in the order of what clients dial; `None` until that is known.
pub type ServicesReader = watch::Receiver<Option<Arc<Vec<ServiceEndpoints>>>>;

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
