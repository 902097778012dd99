//! The ports that an agent may dial on its node, as the cluster lists them: a server is not asked.
//!
//! Kept on disk as well, so that what was reached is reached after a start without the API server.

use std::{path::PathBuf, sync::Arc};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, runtime::watcher::Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    ports::Ports,
    ports_config::{LastConfig, PortsConfig},
};
use crate::{
    kubernetes::{
        ObjectName,
        watch::{Scope, WatchLogger, Watcher, follow},
    },
    model::{ListedPorts, PortSet},
    observability::chain,
    pki::{PrivateDir, StoreError},
};

/// The `ConfigMap` that was known last.
const FILE: &str = "ports.json";

/// What following the ports needs.
pub struct AgentPortsOptions {
    /// The API server; it need not be there.
    pub client: kube::Client,
    /// The `ConfigMap` of the ports.
    pub ports_config: ObjectName,
    /// Where it is kept for the next start.
    pub state_dir: PathBuf,
}

/// Follows the `ConfigMap`. Needs `list` and `watch` of that one.
pub struct AgentPorts {
    client: kube::Client,
    name: ObjectName,
    dir: PrivateDir,
    config: LastConfig,
    /// this --ports--> the agent's policy
    ports_tx: watch::Sender<Arc<ListedPorts>>,
}

impl AgentPorts {
    /// Starts with the ports that were known last, if any; asks nothing of the API server.
    ///
    /// # Errors
    /// When the directory is not usable. A damaged file is not an error.
    pub fn new(options: AgentPortsOptions) -> Result<Self, StoreError> {
        let dir = PrivateDir::create(&options.state_dir)?;
        let config = LastConfig::saved(read(&dir));
        let ports_tx = watch::Sender::new(Arc::new(listed(&config)));
        Ok(Self {
            client: options.client,
            name: options.ports_config,
            dir,
            config,
            ports_tx,
        })
    }

    /// Follows the ports.
    pub fn ports(&self) -> watch::Receiver<Arc<ListedPorts>> {
        self.ports_tx.subscribe()
    }

    /// Follows the `ConfigMap` until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let objects = Api::namespaced(self.client.clone(), &self.name.namespace);
        let which = Scope::Named(self.name.name.clone());
        let mut objects = follow::<ConfigMap>(objects, &which, Watcher::Agent);
        let mut watch_logger = WatchLogger::of("the ports' ConfigMap");
        loop {
            tokio::select! {
                Some(watch_event) = objects.next() => if let Some(event) = watch_logger.tell(watch_event) {
                    self.apply(event);
                },
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn apply(&mut self, event: Event<ConfigMap>) {
        let before = self.config.last.clone();
        if !self.config.apply(event) {
            return;
        }
        if self.config.last != before {
            self.save();
        }
        let ports = listed(&self.config);
        self.ports_tx.send_if_modified(|known| {
            let changed = **known != ports;
            if changed {
                let ListedPorts { own, loopback } = &ports;
                tracing::info!(config = %self.name, ?own, ?loopback, "the ports that servers may reach");
                *known = Arc::new(ports);
            }
            changed
        });
    }

    fn save(&self) {
        let content = serde_json::to_vec(&self.config.last).expect("it is plain data");
        if let Err(error) = self.dir.write(FILE, &content) {
            tracing::warn!(
                error = chain(&error),
                "cannot keep the listed ports: after a start without the API server only the \
                 kubelet's could be reached",
            );
        }
    }
}

fn listed(config: &LastConfig) -> ListedPorts {
    let data = config.last.as_ref().map(|config| &config.data);
    // What is wrong with it, the leading server tells.
    let ports = data.map(|data| Ports::read(data, &PortSet::new()));
    let Ports {
        tunnelled,
        loopback,
        ..
    } = ports.unwrap_or_default();
    ListedPorts {
        own: &tunnelled - &loopback,
        loopback,
    }
}

/// The `ConfigMap` that was kept; none, with a warning, where it cannot be read.
fn read(dir: &PrivateDir) -> Option<PortsConfig> {
    let read = dir.read(FILE).map_err(|error| chain(&error));
    let parsed = read.and_then(|content| match content {
        Some(content) => serde_json::from_slice(&content).map_err(|error| error.to_string()),
        None => Ok(None),
    });
    parsed.unwrap_or_else(|error| {
        tracing::warn!(error, "starting without the listed ports that were known");
        None
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{kubernetes::testing::absent_api_server, model::TunnelPort};

    fn options(dir: &tempfile::TempDir) -> AgentPortsOptions {
        AgentPortsOptions {
            client: absent_api_server(),
            ports_config: "kube-system/yurt-tunnel-server-cfg".parse().unwrap(),
            state_dir: dir.path().join("state"),
        }
    }

    fn config(data: &serde_json::Value) -> ConfigMap {
        serde_json::from_value(json!({ "metadata": { "uid": "u" }, "data": data })).unwrap()
    }

    fn ports(numbers: &[u16]) -> PortSet {
        let ports = numbers.iter().filter_map(|port| TunnelPort::new(*port));
        ports.collect()
    }

    #[tokio::test]
    async fn the_ports_are_open_where_the_server_will_ask_for_them_and_outlive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut this = AgentPorts::new(options(&dir)).unwrap();
        let followed = this.ports();
        assert_eq!(**followed.borrow(), ListedPorts::default());
        this.apply(Event::Apply(config(&json!({
            "http-proxy-ports": "9100, x",
            "dnat-ports-pair": "9051=10264",
            "localhost-proxy-ports": "10249",
        }))));
        let expected = ListedPorts {
            own: ports(&[9100, 9051]),
            loopback: ports(&[10249]),
        };
        assert_eq!(**followed.borrow(), expected);
        // Only an edit takes ports away.
        this.apply(Event::Delete(config(&json!({}))));
        assert_eq!(**followed.borrow(), expected);

        let mut again = AgentPorts::new(options(&dir)).unwrap();
        assert_eq!(**again.ports().borrow(), expected);
        again.apply(Event::Apply(config(&json!({ "http-proxy-ports": "" }))));
        assert_eq!(**again.ports().borrow(), ListedPorts::default());
    }

    #[tokio::test]
    async fn a_damaged_file_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = PrivateDir::create(&dir.path().join("state")).unwrap();
        state.write(FILE, b"{").unwrap();
        let this = AgentPorts::new(options(&dir)).unwrap();
        assert_eq!(**this.ports().borrow(), ListedPorts::default());
    }
}
