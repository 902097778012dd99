//! Agents of the tests' server, each with a certificate that its CA has issued.

use std::{net::SocketAddr, slice, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use rustls::ClientConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{LIFE, PATIENCE, TestServer, identity, plenty};
use crate::{
    model::{AgentIdentity, ServerAddr},
    observability::metrics::AgentMetrics,
    pki::{
        AgentCsr, Credential, SERVER_NAME, ServerProof, Validity, client_config, new_key, request,
    },
    tunnel::agent::{Policy, Servers, SessionManager, SessionManagerOptions},
};

/// An agent of one node.
pub(crate) struct TestAgent {
    pub(in crate::tunnel) servers: Servers,
    listed: watch::Sender<Vec<ServerAddr>>,
    /// What it proves itself with.
    pub(in crate::tunnel) tls: watch::Sender<Arc<ClientConfig>>,
    /// What a server refused of that.
    pub(in crate::tunnel) refused: watch::Receiver<Option<Arc<ClientConfig>>>,
    pub(in crate::tunnel) running: AbortOnDropHandle<()>,
    pub(in crate::tunnel) drain: CancellationToken,
    abort: CancellationToken,
}

impl TestServer {
    /// An agent whose certificate names the node and the enrolment.
    pub(in crate::tunnel) fn agent(&self, node: &str, key: &str, policy: Policy) -> TestAgent {
        self.agent_of(&[self.address], node, key, policy)
    }

    /// The same, told of these addresses.
    pub(in crate::tunnel) fn agent_of(
        &self,
        addresses: &[SocketAddr],
        node: &str,
        key: &str,
        policy: Policy,
    ) -> TestAgent {
        self.agent_until(addresses, &identity(node, key), LIFE, policy)
    }

    /// The same, with a certificate of that life.
    pub(in crate::tunnel) fn agent_until(
        &self,
        addresses: &[SocketAddr],
        identity: &AgentIdentity,
        life: Duration,
        policy: Policy,
    ) -> TestAgent {
        self.agent_with(addresses, identity, self.proof(identity, life), policy)
    }

    /// The same, that proves itself with this.
    pub(in crate::tunnel) fn agent_with(
        &self,
        addresses: &[SocketAddr],
        identity: &AgentIdentity,
        proof: Arc<ClientConfig>,
        policy: Policy,
    ) -> TestAgent {
        let (listed, servers_rx) = watch::channel(listed(addresses));
        let (tls, tls_rx) = watch::channel(proof);
        let servers = Servers::default();
        let refused = watch::Sender::new(None);
        let manager = SessionManager::new(
            SessionManagerOptions {
                servers: servers_rx,
                most_sessions: None,
                server_name: Some(SERVER_NAME.try_into().unwrap()),
                tls: tls_rx,
                refused_tx: refused.clone(),
                identity: watch::channel(identity.clone()).1,
                settings: self.settings,
                memory: plenty(self.settings),
                policy: Arc::new(policy),
                mark: "1".parse().unwrap(),
                metrics: AgentMetrics::register(&mut Registry::default()),
                drain_timeout: PATIENCE,
            },
            servers.clone(),
        );
        let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
        let running = tokio::spawn(
            manager
                .run(drain.clone(), abort.clone())
                .map(Result::unwrap),
        );
        TestAgent {
            servers,
            listed,
            tls,
            refused: refused.subscribe(),
            running: AbortOnDropHandle::new(running),
            drain,
            abort,
        }
    }

    /// A certificate of that life, from now on.
    pub(in crate::tunnel) fn proof(
        &self,
        identity: &AgentIdentity,
        life: Duration,
    ) -> Arc<ClientConfig> {
        self.proof_of(
            identity,
            Validity::starting(OffsetDateTime::now_utc(), life),
        )
    }

    /// A certificate of that life, whenever that began.
    pub(in crate::tunnel) fn proof_of(
        &self,
        identity: &AgentIdentity,
        validity: Validity,
    ) -> Arc<ClientConfig> {
        let subject = new_key().unwrap();
        let csr = AgentCsr::from_der(&request(&subject).unwrap()).unwrap();
        let leaf = self.ca.issue_agent(&csr, identity, validity).unwrap();
        let subject = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(subject.serialize_der()));
        let credential = Credential::new(subject, vec![leaf]).unwrap();
        let cas = slice::from_ref(self.ca.certificate());
        Arc::new(client_config(&credential, cas, ServerProof::OwnCa).unwrap())
    }
}

impl TestAgent {
    /// Tells it of other addresses than before.
    pub(in crate::tunnel) fn list(&self, addresses: &[SocketAddr]) {
        self.listed.send_replace(listed(addresses));
    }

    /// Ends it at once, with what it carries.
    pub(in crate::tunnel) async fn end(self) {
        self.drain.cancel();
        self.abort.cancel();
        timeout(PATIENCE, self.running)
            .await
            .expect("the agent did not end")
            .unwrap();
    }
}

fn listed(addresses: &[SocketAddr]) -> Vec<ServerAddr> {
    let addresses = addresses.iter();
    addresses
        .map(|addr| (addr.ip(), addr.port()).into())
        .collect()
}
