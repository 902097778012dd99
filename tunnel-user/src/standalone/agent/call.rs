//! One call of the enrolment service, over a connection of its own.

use std::{error::Error, io, sync::Arc, time::Duration};

use http::{Uri, uri::Scheme};
use rustls::{CertificateError, ClientConfig, OtherError};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use tonic::{Code, Response, Status};
use tracing::debug;

use crate::{
    model::{Mark, ServerAddr, printable, printable_up_to},
    outgoing::{self, SegmentSize},
    pki::{PinMismatch, SERVER_NAME},
    standalone::{
        chain,
        proto::{Certificate, EnrolRequest, RenewRequest, enrolment_client::EnrolmentClient},
    },
    tunnel::grpc::{self, Channel},
};

/// The longest that a call takes, its connection included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer: two certificates, and a node's addresses.
const LARGEST_ANSWER: usize = 256 * 1024;
/// The longest reason of a refusal, which says what to do, and names addresses perhaps.
const LONGEST_REASON: usize = 2048;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error("cannot reach the server {server}")]
    Unreachable {
        /// The server.
        server: ServerAddr,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The other end cannot prove that it is our server.
    #[error("the server {server} is not the right one")]
    WrongServer {
        /// The server.
        server: ServerAddr,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The other end belongs to another CA than the join command named.
    #[error("the server {server} is not the right one: {mismatch}")]
    Pin {
        /// The server.
        server: ServerAddr,
        /// What it showed.
        mismatch: String,
    },
    /// The server will not, and says why.
    #[error("the server {server} refused: {reason}")]
    Refused {
        /// The server.
        server: ServerAddr,
        /// In the server's words.
        reason: String,
    },
    /// The server could not.
    #[error("the call to the server {server} failed: {reason}")]
    Failed {
        /// The server.
        server: ServerAddr,
        /// What is known.
        reason: String,
    },
    /// Nobody to ask.
    #[error("no server to ask: name one with --server HOST:PORT")]
    NoServer,
    /// No answer.
    #[error("the server {server} did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut {
        /// The server.
        server: ServerAddr,
    },
}

impl CallError {
    /// Whether trying again cannot help: a human must act.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Pin { .. })
    }
}

/// What is asked of a server.
#[derive(Clone)]
pub(super) enum Ask {
    Enrol(EnrolRequest),
    Renew(RenewRequest),
}

/// Asks one server after the other until one gives a certificate. Where none does, the error is
/// that of a server that refused, if one did: it says more than that another was out of reach.
pub(super) async fn ask_any(
    servers: &[ServerAddr],
    config: &Arc<ClientConfig>,
    mark: Mark,
    ask: &Ask,
) -> Result<Certificate, CallError> {
    let mut failure = None;
    for server in servers {
        match call(server, Arc::clone(config), mark, ask.clone()).await {
            Ok(certificate) => return Ok(certificate),
            Err(error) => {
                debug!(error = chain(&error), "no certificate");
                if error.is_final() || !failure.as_ref().is_some_and(CallError::is_final) {
                    failure = Some(error);
                }
            }
        }
    }
    Err(failure.unwrap_or(CallError::NoServer))
}

/// Connects, makes one call, and closes the connection.
async fn call(
    server: &ServerAddr,
    config: Arc<ClientConfig>,
    mark: Mark,
    ask: Ask,
) -> Result<Certificate, CallError> {
    tokio::time::timeout(TIMEOUT, connect_and_call(server, config, mark, ask))
        .await
        .unwrap_or_else(|_| {
            let server = server.clone();
            Err(CallError::TimedOut { server })
        })
}

async fn connect_and_call(
    server: &ServerAddr,
    config: Arc<ClientConfig>,
    mark: Mark,
    ask: Ask,
) -> Result<Certificate, CallError> {
    // A few kB: small segments cost nothing, and arrive on paths where large ones are lost.
    let tcp = outgoing::connect_any(server.host_and_port(), mark, SegmentSize::Small)
        .await
        .map_err(|cause| CallError::Unreachable {
            server: server.clone(),
            cause,
        })?;
    let tls = TlsConnector::from(config)
        .connect(server_name(), tcp)
        .await
        .map_err(|cause| handshake_failed(server, cause))?;
    let tasks = TaskTracker::new();
    let (channel, connection) =
        grpc::connect(tls, tasks.clone())
            .await
            .map_err(|cause| CallError::Failed {
                server: server.clone(),
                reason: chain(&cause),
            })?;
    // The call holds the only channel, so the connection ends soon after it; why a connection ended
    // that has given its answer does not matter.
    let client =
        EnrolmentClient::with_origin(channel, origin()).max_decoding_message_size(LARGEST_ANSWER);
    let (answer, _ended) = tokio::join!(ask.send(client), connection);
    tasks.close();
    tasks.wait().await;
    answer
        .map(Response::into_inner)
        .map_err(|status| refusal(server, &status))
}

impl Ask {
    async fn send(
        self,
        mut client: EnrolmentClient<Channel>,
    ) -> Result<Response<Certificate>, Status> {
        match self {
            Self::Enrol(request) => client.enrol(request).await,
            Self::Renew(request) => client.renew(request).await,
        }
    }
}

fn origin() -> Uri {
    let origin = Uri::builder()
        .scheme(Scheme::HTTPS)
        .authority(SERVER_NAME)
        .path_and_query("/");
    origin.build().expect("the constant is an authority")
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("the constant is a DNS name")
}

fn handshake_failed(server: &ServerAddr, cause: io::Error) -> CallError {
    let server = server.clone();
    match tls_error(&cause) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))))
            if other.is::<PinMismatch>() =>
        {
            CallError::Pin {
                server,
                mismatch: other.to_string(),
            }
        }
        Some(_) => CallError::WrongServer { server, cause },
        None => CallError::Unreachable { server, cause },
    }
}

fn tls_error(cause: &io::Error) -> Option<&rustls::Error> {
    cause.get_ref()?.downcast_ref()
}

fn refusal(server: &ServerAddr, status: &Status) -> CallError {
    let server = server.clone();
    match status.code() {
        Code::PermissionDenied | Code::InvalidArgument | Code::Unauthenticated => {
            let reason = printable_up_to(status.message(), LONGEST_REASON);
            CallError::Refused { server, reason }
        }
        _ => {
            // The message of a status made from an error leaves out the cause.
            let reason = status.source().map_or_else(
                || printable(status.message()),
                |cause| printable(&format!("{}: {}", status.message(), chain(cause))),
            );
            CallError::Failed { server, reason }
        }
    }
}
