//! What is spoken below HTTP on a connection to a target: nothing, or TLS in which the node proves what it is before
//! anything is said to it.

use std::{io, sync::Arc, time::Duration};

use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Key;
use crate::{
    frontend::http::refusal::Refusal,
    observability::chain,
    pki::{ClientIdentity, node_client_config},
};

/// How long a target may take for its part of the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Below HTTP.
pub(in crate::frontend::http) enum Transport {
    Plain,
    Tls(TargetTls),
}

/// How TLS is spoken with nodes.
#[derive(Clone)]
pub struct TargetTls {
    /// Whose certificates nodes have.
    pub cas: watch::Receiver<Vec<CertificateDer<'static>>>,
    /// What proves this server to kubelets; `None` until there is a certificate.
    pub identity: watch::Receiver<Option<ClientIdentity>>,
}

/// TLS with one target.
pub(super) struct Secured {
    key: Key,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TargetTls {
    /// Only a kubelet is shown who this server is, and only once it has proved to be this node's.
    pub(super) fn to(&self, key: &Key) -> Result<Secured, Refusal> {
        let identity = if key.is_kubelet {
            let identity = self.identity.borrow().clone();
            Some(identity.ok_or(Refusal::NoCertificate)?)
        } else {
            None
        };
        let address = key.dst.ip();
        let config = node_client_config(&key.node, address, &self.cas.borrow(), identity);
        let config = config.map_err(|error| no_tls(key, chain(&error)))?;
        let name = ServerName::try_from(key.node.as_str().to_owned());
        Ok(Secured {
            key: key.clone(),
            config: Arc::new(config),
            name: name.unwrap_or_else(|_| ServerName::IpAddress(address.into())),
        })
    }
}

impl Secured {
    pub(super) async fn connect<S>(self, io: S) -> Result<TlsStream<S>, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { key, config, name } = self;
        let connecting = TlsConnector::from(config).connect(name, io);
        match timeout(HANDSHAKE_TIME, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(&key, &error)),
            Err(_elapsed) => Err(no_tls(&key, format!("no answer within {HANDSHAKE_TIME:?}"))),
        }
    }
}

fn failed(key: &Key, error: &io::Error) -> Refusal {
    let why = error.get_ref().and_then(|error| error.downcast_ref());
    match why {
        Some(rustls::Error::InvalidCertificate(cause)) => Refusal::NotVerified {
            node: key.node.clone(),
            dst: key.dst,
            cause: cause.to_string(),
        },
        _ => no_tls(key, chain(error)),
    }
}

fn no_tls(key: &Key, cause: String) -> Refusal {
    Refusal::NoTls {
        node: key.node.clone(),
        dst: key.dst,
        cause,
    }
}
