//! The way to the API server.

use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http::Uri;
use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use rustls_pki_types::CertificateDer;
use tokio::{net::lookup_host, time::timeout};

/// An API server that does not take a connection for this long is away.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Resolving its name is not worth waiting for longer.
const RESOLVE_TIME: Duration = Duration::from_secs(5);

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
         service account's token"
    )]
    NotInCluster(#[source] InClusterError),
    /// The kubeconfig is not usable.
    #[error("cannot use --kubeconfig {file}", file = file.display())]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// Nothing says which CA the cluster has.
    #[error(
        "the cluster's CA is not known: the kubeconfig's cluster needs certificate-authority or \
         certificate-authority-data"
    )]
    NoCa,
    /// The credentials or certificates cannot be used.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<kube::Error>),
}

impl Access {
    /// Reads the kubeconfig, or the service account of this pod. Nothing is asked of the API
    /// server, so it need not be there.
    pub async fn new(kubeconfig: Option<&Path>) -> Result<Self, AccessError> {
        let mut config = match kubeconfig {
            Some(file) => from_file(file)
                .await
                .map_err(|source| AccessError::Kubeconfig {
                    file: file.to_owned(),
                    source,
                })?,
            None => Config::incluster().map_err(AccessError::NotInCluster)?,
        };
        config.connect_timeout = Some(CONNECT_TIME);
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        let ca = config.root_cert.clone().unwrap_or_default();
        if ca.is_empty() {
            return Err(AccessError::NoCa);
        }
        let namespace = config.default_namespace.clone();
        let url = config.cluster_url.clone();
        let client =
            Client::try_from(config).map_err(|error| AccessError::Client(Box::new(error)))?;
        Ok(Self {
            client,
            ca: ca.into_iter().map(CertificateDer::from).collect(),
            namespace,
            url,
        })
    }

    /// Where the API server is, here and for pods of this cluster: what no node may claim.
    pub async fn api_server(&self) -> Vec<IpAddr> {
        let in_cluster = env::var("KUBERNETES_SERVICE_HOST").ok();
        let in_cluster = in_cluster.and_then(|host| host.parse::<IpAddr>().ok());
        let host = self.url.host().unwrap_or_default();
        let mut addresses = match host.trim_matches(['[', ']']).parse() {
            Ok(address) => vec![address],
            Err(_) => resolve(host).await,
        };
        addresses.extend(in_cluster);
        addresses
    }
}

async fn resolve(host: &str) -> Vec<IpAddr> {
    let reason = match timeout(RESOLVE_TIME, lookup_host((host, 0))).await {
        Ok(Ok(resolved)) => return resolved.map(|address| address.ip()).collect(),
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => "it takes too long".to_owned(),
    };
    tracing::warn!(
        host,
        reason,
        "cannot resolve the API server's name: a node that claims its address would get connections to it"
    );
    Vec::new()
}

async fn from_file(file: &Path) -> Result<Config, KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(file)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}
