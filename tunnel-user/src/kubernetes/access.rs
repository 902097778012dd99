//! The way to the API server.

mod any_version;
mod entries;
mod kubeconfig;
mod proxy;
mod renewal;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::{
    Uri,
    uri::{Authority, Scheme},
};
use kube::{Client, Config, config::InClusterError};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

#[cfg(test)]
pub(super) use self::any_version::install as install_provider;
use self::entries::Content;
pub use self::{entries::BadEntry, kubeconfig::KubeconfigError, renewal::CredentialFiles};
use super::{ApiServerAddresses, ApiServerHost, api_error};
use crate::pki::check_client_ca;

/// Where a pod finds its token and the cluster's CA.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// An API server that does not take a connection for this long is away.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// A connection on which nothing arrives for this long, though an answer is due, is dead: a machine
/// that dies, or a firewall that forgets, says nothing. Every watch ends sooner.
const SILENCE: Duration = Duration::from_secs(310);

/// The CAs of the cluster, as they are now.
pub type ClusterCas = watch::Receiver<Vec<CertificateDer<'static>>>;

/// A client of the API server, and what it is known by.
#[derive(Clone)]
pub struct Access {
    /// Speaks with the API server; it has not spoken yet.
    pub client: Client,
    /// The CAs of the cluster: one signs the certificates of servers and agents.
    pub cas: ClusterCas,
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
    /// The kubeconfig has changed, and names something else.
    #[error("it names {now} now and {before} before: restart to follow it")]
    Elsewhere {
        /// API server and namespace as they are in use.
        before: String,
        /// What it says now.
        now: String,
    },
    /// The credentials cannot be used, or a program does not give any.
    #[error("cannot make a client of the API server with {credentials}: {cause}")]
    Client {
        /// Whose credentials.
        credentials: String,
        /// Why not.
        cause: String,
    },
}

/// Where credentials for the API server come from.
#[derive(Clone, Debug)]
enum Origin {
    Kubeconfig(PathBuf),
    /// Of this pod; with an API server elsewhere than the kubelet says, or not.
    ServiceAccount(Option<Authority>),
}

impl Access {
    /// Reads the kubeconfig, or the service account of this pod, whose API server may be named. Nothing is asked of the
    /// API server, so it need not be there. While [`CredentialFiles`] run, the client and the CAs follow what was read.
    pub async fn new(
        kubeconfig: Option<&Path>,
        api_server: Option<&Authority>,
    ) -> Result<(Self, CredentialFiles), AccessError> {
        any_version::install();
        let origin = match kubeconfig {
            Some(file) => Origin::Kubeconfig(file.to_owned()),
            None => Origin::ServiceAccount(api_server.cloned()),
        };
        // Before they are read: what changes meanwhile is seen later.
        let fingerprint = origin.fingerprint();
        let config = origin.read().await?;
        let namespace = config.default_namespace.clone();
        let url = config.cluster_url.clone();
        let files = CredentialFiles::new(origin, fingerprint, config)?;
        let access = Self {
            client: files.client(&namespace),
            cas: files.cas(),
            namespace,
            url,
        };
        Ok((access, files))
    }

    /// Where the API server is, here and for pods of this cluster: what no node may claim.
    pub fn api_server(&self) -> (ApiServerHost, ApiServerAddresses) {
        ApiServerHost::new(self.url.host().unwrap_or_default())
    }
}

impl Origin {
    async fn read(&self) -> Result<Config, AccessError> {
        let mut config = match self {
            Self::Kubeconfig(file) => kubeconfig::read(file).await?,
            Self::ServiceAccount(None) => in_cluster(Config::incluster)?,
            Self::ServiceAccount(Some(server)) => in_cluster(|| elsewhere(server))?,
        };
        config.connect_timeout = Some(CONNECT_TIME);
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        Ok(config)
    }

    fn client(&self, config: Config) -> Result<Client, AccessError> {
        Client::try_from(config).map_err(|error| AccessError::Client {
            credentials: match self {
                Self::Kubeconfig(file) => format!("--kubeconfig {}", file.display()),
                Self::ServiceAccount(_) => format!("the service account in {SERVICE_ACCOUNT}"),
            },
            cause: api_error::describe(&error),
        })
    }

    /// The files whose content is in the client. Those of tokens are not: `kube` reads them again by itself.
    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Kubeconfig(file) => kubeconfig::files(file),
            Self::ServiceAccount(_) => vec![PathBuf::from(format!("{SERVICE_ACCOUNT}/ca.crt"))],
        }
    }

    fn fingerprint(&self) -> u64 {
        renewal::fingerprint(&self.files())
    }
}

/// What does not change while a process runs: others were told.
fn place(config: &Config) -> String {
    format!(
        "{} (namespace {})",
        config.cluster_url, config.default_namespace
    )
}

fn authorities(config: &Config) -> Vec<CertificateDer<'static>> {
    let cas = config.root_cert.iter().flatten();
    cas.cloned().map(CertificateDer::from).collect()
}

/// The CAs in a file, in PEM.
pub fn authorities_of(file: &Path) -> Result<Vec<CertificateDer<'static>>, BadEntry> {
    let content = Content::of_file(&file.to_string_lossy())?;
    content.authorities()?;
    content.certificates()
}

/// The CAs in a file, in PEM, whose clients are to be users.
pub fn client_authorities_of(file: &Path) -> Result<Vec<CertificateDer<'static>>, BadEntry> {
    let content = Content::of_file(&file.to_string_lossy())?;
    let cas = content.certificates()?;
    let now = time::OffsetDateTime::now_utc();
    for (index, ca) in cas.iter().enumerate() {
        let number = index + 1;
        check_client_ca(ca, now).map_err(|why| {
            content.bad(format!(
                "holds a certificate, number {number}, that makes nobody a user: {why}"
            ))
        })?;
    }
    Ok(cas)
}

/// The service account of this pod.
fn in_cluster(
    config: impl FnOnce() -> Result<Config, InClusterError>,
) -> Result<Config, AccessError> {
    let config =
        config().map_err(|error| AccessError::NotInCluster(api_error::describe(&error)))?;
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

/// The same account, and another way to the API server.
fn elsewhere(server: &Authority) -> Result<Config, InClusterError> {
    let url = Uri::builder().scheme(Scheme::HTTPS).path_and_query("/");
    let url = url.authority(server.clone()).build();
    let mut config = Config::incluster_dns()?;
    config.cluster_url = url.expect("scheme, authority and path are all there is to it");
    Ok(config)
}

#[cfg(test)]
mod tests;
