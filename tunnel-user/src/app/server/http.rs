//! The HTTP frontend, where there is one.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::watch;

use super::{Server, awaited::Guard};
use crate::{
    frontend::{
        OwnAddresses,
        http::{AllowedSources, HttpFrontend, HttpOptions, ProxyOptions},
    },
    model::AddressRanges,
    observability::metrics::HttpRequests,
};

impl Server {
    /// Accepts requests; `gone` is dropped with the last of them.
    pub(super) fn serve_http(&mut self, gone: Arc<Guard>) -> anyhow::Result<()> {
        let Some(listener) = self.sockets.http()? else {
            return Ok(());
        };
        let frontend = HttpFrontend::new(
            listener,
            HttpOptions {
                allowed: self.allowed_sources(),
                proxy: self.proxy(self.components.metrics.http_requests.clone()),
            },
        );
        let frontend = frontend.context("cannot watch a listening socket")?;
        let stops = self.stops();
        self.tasks.spawn("answering HTTP requests", async move {
            frontend.run(stops).await;
            drop(gone);
        });
        Ok(())
    }

    /// What every proxy answers by.
    pub(super) fn proxy(&self, requests: HttpRequests) -> ProxyOptions {
        ProxyOptions {
            guards_loopback_ports: self.args.guards_loopback_ports(),
            snapshots: self.components.platform.snapshots.clone(),
            dialer: self.dialer(),
            connections: self.components.metrics.connections.clone(),
            requests,
            under_way: self.components.metrics.requests_under_way.clone(),
        }
    }

    fn allowed_sources(&self) -> AllowedSources {
        let networks = match self.args.http_networks() {
            Some(networks) => {
                let networks: AddressRanges = networks.into_iter().collect();
                watch::Sender::new(Arc::new(networks)).subscribe()
            }
            None => self.components.platform.cluster_clients.clone(),
        };
        AllowedSources {
            networks,
            own_addresses: OwnAddresses(self.components.own_addresses.clone()),
        }
    }
}
