//! What the tests of this module share: a state in a directory of its own, and a server that
//! serves enrolment over TLS on loopback as the agent port does.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::KeyPair;
use rustls::ServerConfig;
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use tower_service::Service as _;

use super::{
    EnrolmentService, JoinToken, NewToken, SERVER_CERTIFICATE_LIFE, ServerCertificate, State,
    proto::enrolment_server::EnrolmentServer,
};
use crate::{
    model::ServerAddr,
    pki::{AgentCsr, ClientCertificate, new_key, request},
};

pub(super) struct TestState {
    pub(super) state: Arc<State>,
    pub(super) dir: tempfile::TempDir,
}

pub(super) struct TestServer {
    pub(super) addr: ServerAddr,
    _accepting: AbortOnDropHandle<()>,
}

pub(super) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub(super) fn csr(key: &KeyPair) -> AgentCsr {
    AgentCsr::from_der(&request(key).unwrap()).unwrap()
}

pub(super) fn key_and_csr() -> (KeyPair, AgentCsr) {
    let key = new_key().unwrap();
    let csr = csr(&key);
    (key, csr)
}

impl TestState {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = State::create(&dir.path().join("state"), now()).unwrap();
        let state = Arc::new(state);
        Self { state, dir }
    }

    pub(super) fn token(&self, node: &str, addresses: &[&str]) -> JoinToken {
        let new = NewToken {
            node: node.parse().unwrap(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            gate_policy: None,
            ttl: Duration::from_hours(1),
        };
        self.state.create_token(new, now()).unwrap().0
    }
}

impl TestServer {
    pub(super) async fn start(state: &Arc<State>, certificate_ttl: Duration) -> Self {
        let certificate = ServerCertificate::new(Arc::clone(state), SERVER_CERTIFICATE_LIFE)
            .await
            .unwrap();
        let service =
            EnrolmentService::new(Arc::clone(state), certificate_ttl, Arc::new(|_| false));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        Self {
            addr: server_addr(addr),
            _accepting: AbortOnDropHandle::new(tokio::spawn(accept(
                listener,
                certificate.configs(),
                EnrolmentServer::new(service),
            ))),
        }
    }
}

pub(super) fn server_addr(addr: SocketAddr) -> ServerAddr {
    ServerAddr::from((addr.ip(), addr.port()))
}

async fn accept(
    listener: TcpListener,
    configs: watch::Receiver<Arc<ServerConfig>>,
    service: EnrolmentServer<EnrolmentService>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(configs.borrow().clone());
        connections.spawn(serve(tcp, acceptor, service.clone()));
    }
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, service: EnrolmentServer<EnrolmentService>) {
    // A client that fails the handshake learns it from TLS; so does the test.
    let Ok(tls) = acceptor.accept(tcp).await else {
        return;
    };
    let shown = tls.get_ref().1.peer_certificates();
    let shown = shown.and_then(|chain| chain.first()).cloned();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        if let Some(certificate) = &shown {
            request
                .extensions_mut()
                .insert(ClientCertificate(certificate.clone().into_owned()));
        }
        service.clone().call(request)
    });
    let _closed = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(tls), service)
        .await;
}
