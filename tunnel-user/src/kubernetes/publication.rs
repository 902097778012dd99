//! What the leading server writes into the cluster for clients that dial nodes by name.
//!
//! ```text
//!  Source --Listing--> Names --> ConfigMap: hosts, which CoreDNS reads
//!                 \---> Ports --> ports of the servers' internal Service
//!  Service, ConfigMap --watches--> compared with what should be there
//! ```
//! What is there already is not written, what others keep there is left alone, and nothing is done while
//! this server does not lead.

mod followed;
mod keeper;
mod names;
mod ownership;
mod pace;
mod ports;
mod problem;
mod records;
mod service;
mod service_ports;

use std::sync::Arc;

use kube::Client;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{keeper::keep, names::Names, ports::Ports, problem::ProblemReporter};
use super::{ObjectName, events::Events, source::Listing};
use crate::model::ListeningPorts;

/// As whom we write: what others own stays theirs.
const FIELD_MANAGER: &str = "culvert-server";

/// Every Node and the ports, from the source; `None` while this server does not lead or know.
type Listings = watch::Receiver<Option<Arc<Listing>>>;

/// What publishing needs.
pub struct PublicationOptions {
    /// Reaches the API server.
    pub client: Client,
    /// The `ConfigMap` of the nodes' DNS records.
    pub dns_config: ObjectName,
    /// The Service to which clients of edge nodes are sent.
    pub internal_service: ObjectName,
    /// Where servers listen behind it.
    pub listening: ListeningPorts,
    /// What there is to publish.
    pub listings: watch::Receiver<Option<Arc<Listing>>>,
    /// Told of problems.
    pub events: Events,
    /// Whether this server leads.
    pub leading: watch::Receiver<bool>,
}

/// How it stands with one object that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The object.
    pub object: ObjectName,
    /// Of how many records or ports it consists.
    pub entries: usize,
    /// Bytes of the `ConfigMap`, those that others keep there included; 0 for a Service.
    pub bytes: usize,
    /// When this server last wrote it.
    pub written_at: Option<OffsetDateTime>,
    /// How often it has written it.
    pub writes: u64,
    /// What is wrong.
    pub troubles: Vec<String>,
}

/// Follows how it stands.
#[derive(Clone, Debug)]
pub struct PublicationReader {
    /// With the records.
    pub names: watch::Receiver<Published>,
    /// With the Service's ports.
    pub ports: watch::Receiver<Published>,
}

/// Publishes while it leads.
pub struct Publication {
    options: PublicationOptions,
    names_tx: watch::Sender<Published>,
    ports_tx: watch::Sender<Published>,
}

impl Publication {
    /// The most bytes that the `ConfigMap` of the records can have.
    pub const NAMES_LIMIT: usize = names::LIMIT;

    /// Nothing is asked of the API server yet.
    pub fn new(options: PublicationOptions) -> (Self, PublicationReader) {
        let names_tx = watch::Sender::new(Published::nothing(&options.dns_config));
        let ports_tx = watch::Sender::new(Published::nothing(&options.internal_service));
        let reader = PublicationReader {
            names: names_tx.subscribe(),
            ports: ports_tx.subscribe(),
        };
        let this = Self {
            options,
            names_tx,
            ports_tx,
        };
        (this, reader)
    }

    /// Publishes until the shutdown, in every term in which this server leads.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.serve_terms() => shutdown.cancelled().await,
            () = shutdown.cancelled() => {}
        }
    }

    /// Ends when nobody can become the leader any more.
    async fn serve_terms(&self) {
        let mut leading = self.options.leading.clone();
        while leading.wait_for(|leads| *leads).await.is_ok() {
            info!("keeping the nodes' names and the internal Service's ports");
            tokio::select! {
                () = self.serve_term() => {}
                lost = leading.wait_for(|leads| !leads) => if lost.is_err() { return },
            }
            info!("leaving the nodes' names and the internal Service's ports to another server");
            self.names_tx.send_modify(Published::leave);
            self.ports_tx.send_modify(Published::leave);
        }
    }

    /// Never ends by itself.
    async fn serve_term(&self) {
        let PublicationOptions {
            client,
            dns_config,
            internal_service,
            listening,
            listings,
            events,
            leading: _,
        } = &self.options;
        let reporter =
            |kind, object: &ObjectName| ProblemReporter::new(kind, object.clone(), events.clone());
        let names = Names::new(
            client,
            dns_config.clone(),
            internal_service.clone(),
            listings.clone(),
        );
        let ports = Ports::new(
            client,
            internal_service.clone(),
            listings.clone(),
            listening.clone(),
        );
        tokio::join!(
            keep(names, reporter("ConfigMap", dns_config), &self.names_tx),
            keep(ports, reporter("Service", internal_service), &self.ports_tx),
        );
    }
}

impl Published {
    fn nothing(object: &ObjectName) -> Self {
        Self {
            object: object.clone(),
            entries: 0,
            bytes: 0,
            written_at: None,
            writes: 0,
            troubles: Vec::new(),
        }
    }

    /// What it is like now, another server knows.
    fn leave(&mut self) {
        self.entries = 0;
        self.bytes = 0;
        self.troubles.clear();
    }
}
