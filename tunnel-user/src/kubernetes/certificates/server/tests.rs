use std::{fs, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;
use tokio::{io::duplex, sync::watch, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    kubernetes::{
        CertificateNames,
        certificates::kind::{AGENT, CertificateKind, SERVER_NODE_NAME, SERVER_PROOF},
        testing::{ClusterCa, absent_api_server, names},
    },
    pki::{Credential, Subject, client_config, provider},
};

const HOUR: Duration = Duration::from_hours(1);
const PATIENCE: Duration = Duration::from_secs(20);

struct Test {
    ca: ClusterCa,
    cas: watch::Sender<Vec<CertificateDer<'static>>>,
    dir: tempfile::TempDir,
    names: watch::Sender<Option<CertificateNames>>,
}

impl Test {
    fn new() -> Self {
        let ca = ClusterCa::new();
        Self {
            cas: watch::Sender::new(vec![ClusterCa::new().certificate, ca.certificate.clone()]),
            ca,
            dir: tempfile::tempdir().unwrap(),
            names: watch::Sender::new(None),
        }
    }

    fn store(&self, content: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join("server.pem"), content).unwrap();
    }

    fn certificate(&self) -> ServerCertificate {
        ServerCertificate::new(CertificateOptions {
            client: absent_api_server(),
            cas: self.cas.subscribe(),
            cert_dir: self.dir.path().to_owned(),
            names: self.names.subscribe(),
            life: None,
        })
        .unwrap()
    }

    /// An agent of this cluster, which dials the server as `tunnel.example`.
    fn agent(&self) -> Arc<ClientConfig> {
        self.agent_of(&self.ca)
    }

    /// One that trusts this cluster, with a certificate of some CA.
    fn agent_of(&self, ca: &ClusterCa) -> Arc<ClientConfig> {
        let now = OffsetDateTime::now_utc();
        let edge = names(&["edge-1"], &["10.0.0.1"]);
        let credential = ca.issue(&AGENT, &edge, (now, HOUR));
        Arc::new(
            client_config(
                &credential,
                std::slice::from_ref(&self.ca.certificate),
                SERVER_PROOF,
            )
            .unwrap(),
        )
    }

    async fn handshake(&self, server: &ServerCertificate) -> Result<(), String> {
        handshake(server, self.agent()).await
    }
}

/// Whether both ends let it succeed.
async fn handshake(server: &ServerCertificate, agent: Arc<ClientConfig>) -> Result<(), String> {
    let config = server.configs().borrow().clone();
    handshake_with(config, agent).await
}

async fn handshake_with(config: Arc<ServerConfig>, agent: Arc<ClientConfig>) -> Result<(), String> {
    let (near, far) = duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(config);
    let connector = TlsConnector::from(agent);
    let name = ServerName::try_from("tunnel.example").unwrap();
    let (accepted, connected) = tokio::join!(acceptor.accept(far), connector.connect(name, near));
    connected.map_err(|error| error.to_string())?;
    let shown = accepted.map_err(|error| error.to_string())?;
    assert!(shown.get_ref().1.peer_certificates().is_some());
    Ok(())
}

#[tokio::test]
async fn a_caller_without_a_certificate_fails_the_handshake() {
    let test = Test::new();
    let own = names(&["tunnel.example"], &[]);
    let now = OffsetDateTime::now_utc();
    let server = test.certificate();
    server.publish(&test.ca.issue(&SERVER, &own, (now, HOUR)));
    let mut roots = RootCertStore::empty();
    roots.add(test.ca.certificate.clone()).unwrap();
    let bare = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let error = handshake(&server, Arc::new(bare)).await.unwrap_err();
    assert!(error.contains("no certificates"), "{error}");
}

#[tokio::test]
async fn the_stored_certificate_serves_without_an_api_server() {
    let test = Test::new();
    let own = names(&["tunnel.example"], &[]);
    let now = OffsetDateTime::now_utc();
    test.store(test.ca.issue(&SERVER, &own, (now, HOUR)).to_pem());
    let server = test.certificate();
    assert!(server.validities().borrow().is_some());
    test.handshake(&server).await.unwrap();
}

#[tokio::test]
async fn a_kubelets_certificate_for_the_servers_name_is_refused() {
    let test = Test::new();
    let own = names(&["tunnel.example"], &[]);
    let now = OffsetDateTime::now_utc();
    let kubelet = CertificateKind {
        subject: Subject {
            common_name: "system:node:edge-2",
            organization: "system:nodes",
        },
        ..SERVER
    };
    let server = test.certificate();
    server.publish(&test.ca.issue(&kubelet, &own, (now, HOUR)));
    let error = test.handshake(&server).await.unwrap_err();
    assert!(error.contains("system:node:edge-2"), "{error}");
    server.publish(&test.ca.issue(&SERVER, &own, (now, HOUR)));
    test.handshake(&server).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_a_kubelet_with_the_servers_subject_may_have_is_refused() {
    let test = Test::new();
    let of_node = names(&["tunnel.example", SERVER_NODE_NAME], &[]);
    let server = test.certificate();
    let now = OffsetDateTime::now_utc();
    server.publish(&test.ca.issue(&SERVER, &of_node, (now, HOUR)));
    let error = test.handshake(&server).await.unwrap_err();
    assert!(
        error.contains("kubelet") && error.contains(SERVER_NODE_NAME),
        "{error}"
    );
}

#[tokio::test]
async fn handshakes_fail_until_there_is_a_certificate() {
    let test = Test::new();
    let server = test.certificate();
    assert_eq!(*server.validities().borrow(), None);
    test.handshake(&server).await.unwrap_err();
}

#[tokio::test]
async fn what_is_damaged_over_or_somebody_elses_is_not_used() {
    let test = Test::new();
    let own = names(&["tunnel.example"], &[]);
    let now = OffsetDateTime::now_utc();
    let good = test.ca.issue(&SERVER, &own, (now, HOUR));
    let other_key = test.ca.issue(&SERVER, &own, (now, HOUR));
    let mixed = Credential::new(other_key.key.clone_key(), good.chain.clone()).unwrap();
    for content in [
        String::new(),
        "rubbish".to_owned(),
        ClusterCa::new().issue(&SERVER, &own, (now, HOUR)).to_pem(),
        test.ca.issue(&AGENT, &own, (now, HOUR)).to_pem(),
        test.ca
            .issue(&SERVER, &own, (now - 2 * HOUR, HOUR))
            .to_pem(),
        mixed.to_pem(),
        good.to_pem().replace("PRIVATE KEY", "NO KEY"),
    ] {
        test.store(&content);
        assert_eq!(*test.certificate().validities().borrow(), None, "{content}");
    }
    test.store(good.to_pem());
    assert!(test.certificate().validities().borrow().is_some());
}

#[tokio::test]
async fn what_another_process_got_for_the_new_names_is_taken() {
    let test = Test::new();
    let now = OffsetDateTime::now_utc();
    let old = names(&["old.example"], &[]);
    let new = names(&["tunnel.example"], &["192.0.2.1"]);
    let before = now - Duration::from_mins(1);
    test.store(test.ca.issue(&SERVER, &old, (before, HOUR)).to_pem());
    let server = test.certificate();
    let (mut configs, shutdown) = (server.configs(), CancellationToken::new());
    configs.mark_unchanged();
    test.store(test.ca.issue(&SERVER, &new, (now, HOUR)).to_pem());
    test.names.send_replace(Some(new));
    let running = tokio::spawn(server.run(|_| {}, shutdown.clone()));
    timeout(PATIENCE, configs.changed()).await.unwrap().unwrap();
    shutdown.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn agents_of_a_ca_that_the_cluster_gets_are_let_in_and_those_of_one_that_it_loses_are_not() {
    let test = Test::new();
    let own = names(&["tunnel.example"], &[]);
    let now = OffsetDateTime::now_utc();
    test.store(test.ca.issue(&SERVER, &own, (now, HOUR)).to_pem());
    let server = test.certificate();
    let mut configs = server.configs();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(|_| {}, shutdown.clone()));
    let next = ClusterCa::new();
    let both = vec![test.ca.certificate.clone(), next.certificate.clone()];
    for (cas, old_is_let_in, new_is_let_in) in [
        (vec![test.ca.certificate.clone()], true, false),
        (both, true, true),
        (vec![next.certificate.clone()], false, true),
    ] {
        configs.mark_unchanged();
        test.cas.send_replace(cas);
        timeout(PATIENCE, configs.changed()).await.unwrap().unwrap();
        for (agent, is_let_in) in [
            (test.agent(), old_is_let_in),
            (test.agent_of(&next), new_is_let_in),
        ] {
            let config = configs.borrow().clone();
            assert_eq!(handshake_with(config, agent).await.is_ok(), is_let_in);
        }
    }
    shutdown.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}
