//! The way to the API server.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use rustls_pki_types::CertificateDer;

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
        let client =
            Client::try_from(config).map_err(|error| AccessError::Client(Box::new(error)))?;
        Ok(Self {
            client,
            ca: ca.into_iter().map(CertificateDer::from).collect(),
            namespace,
        })
    }
}

async fn from_file(file: &Path) -> Result<Config, KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(file)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}
