//! The way to the API server.

mod any_version;
mod entries;
mod kubeconfig;
mod proxy;

use std::{path::Path, time::Duration};

use http::Uri;
use kube::{Client, Config};
use rustls_pki_types::CertificateDer;

#[cfg(test)]
pub(super) use self::any_version::install as install_provider;
use self::entries::Content;
pub use self::{entries::BadEntry, kubeconfig::KubeconfigError};
use super::{ApiServerAddresses, ApiServerHost, api_error};

/// Where a pod finds its token and the cluster's CA.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// An API server that does not take a connection for this long is away.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// A connection on which nothing arrives for this long, though an answer is due, is dead: a machine
/// that dies, or a firewall that forgets, says nothing. Every watch ends sooner.
const SILENCE: Duration = Duration::from_secs(310);

/// A client of the API server, and what it is known by.
#[derive(Clone)]
pub struct Access {
    /// Speaks with the API server; it has not spoken yet.
    pub client: Client,
    /// The CA of the cluster: it signs the certificates of servers and agents.
    pub ca: Vec<CertificateDer<'static>>,
    /// The namespace of this pod, or the one that the kubeconfig names.
    pub namespace: String,
    url: Uri,
}

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No kubeconfig was given, and this is not a pod.
    #[error(
        "this process runs in no pod with a service account: give --kubeconfig FILE, or mount the \
         service account's token ({0})"
    )]
    NotInCluster(String),
    /// The service account is not usable.
    #[error(
        "cannot use the service account in {SERVICE_ACCOUNT}, {0}: give --kubeconfig FILE, or mount another"
    )]
    ServiceAccount(BadEntry),
    /// The kubeconfig is not usable.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The credentials cannot be used, or a program does not give any.
    #[error("cannot make a client of the API server with {credentials}: {cause}")]
    Client {
        /// Whose credentials.
        credentials: String,
        /// Why not.
        cause: String,
    },
}

impl Access {
    /// Reads the kubeconfig, or the service account of this pod. Nothing is asked of the API
    /// server, so it need not be there.
    pub async fn new(kubeconfig: Option<&Path>) -> Result<Self, AccessError> {
        any_version::install();
        let mut config = match kubeconfig {
            Some(file) => kubeconfig::read(file).await?,
            None => in_cluster()?,
        };
        config.connect_timeout = Some(CONNECT_TIME);
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        let ca = config.root_cert.clone().unwrap_or_default();
        let namespace = config.default_namespace.clone();
        let url = config.cluster_url.clone();
        let client = Client::try_from(config).map_err(|error| AccessError::Client {
            credentials: kubeconfig.map_or_else(
                || format!("the service account in {SERVICE_ACCOUNT}"),
                |file| format!("--kubeconfig {}", file.display()),
            ),
            cause: api_error::describe(&error),
        })?;
        Ok(Self {
            client,
            ca: ca.into_iter().map(CertificateDer::from).collect(),
            namespace,
            url,
        })
    }

    /// Where the API server is, here and for pods of this cluster: what no node may claim.
    pub fn api_server(&self) -> (ApiServerHost, ApiServerAddresses) {
        ApiServerHost::new(self.url.host().unwrap_or_default())
    }
}

/// The service account of this pod.
fn in_cluster() -> Result<Config, AccessError> {
    let config = Config::incluster()
        .map_err(|error| AccessError::NotInCluster(api_error::describe(&error)))?;
    let of_account = |file: &str| {
        let file = format!("{SERVICE_ACCOUNT}/{file}");
        Content::of_file(&file)
    };
    let checked = || {
        of_account("ca.crt")?.authorities()?;
        of_account("token")?.token()
    };
    checked().map_err(AccessError::ServiceAccount)?;
    Ok(config)
}

#[cfg(test)]
mod tests;
