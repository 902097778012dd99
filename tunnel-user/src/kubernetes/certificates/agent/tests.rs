use std::{fs, net::IpAddr, sync::Mutex, time::Duration};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::{sync::watch, time::timeout};

use super::*;
use crate::kubernetes::{
    CertificateNames,
    testing::{ClusterCa, absent_api_server, names},
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
            cas: watch::Sender::new(vec![ca.certificate.clone()]),
            ca,
            dir: tempfile::tempdir().unwrap(),
            names: watch::Sender::default(),
        }
    }

    fn store(&self, node: &str, ips: &[&str], issued: OffsetDateTime) {
        let credential = self.ca.issue(&AGENT, &names(&[node], ips), (issued, HOUR));
        fs::write(self.dir.path().join("agent.pem"), credential.to_pem()).unwrap();
    }

    fn options(&self) -> CertificateOptions {
        CertificateOptions {
            client: absent_api_server(),
            cas: self.cas.subscribe(),
            cert_dir: self.dir.path().to_owned(),
            names: self.names.subscribe(),
            life: None,
        }
    }

    async fn establish(&self) -> AgentCredentials {
        let shutdown = CancellationToken::new();
        let watch_logger = |reason| panic!("{reason}");
        let establishing =
            AgentCredentials::establish(node(), self.options(), &watch_logger, &shutdown);
        timeout(PATIENCE, establishing).await.unwrap().unwrap()
    }
}

fn node() -> NodeName {
    "edge-1".parse().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn the_stored_certificate_proves_the_node_without_an_api_server() {
    let test = Test::new();
    test.store(
        "edge-1",
        &["10.0.0.1", "fd00::1"],
        OffsetDateTime::now_utc(),
    );
    let credentials = test.establish().await;
    let identity = credentials.identities().borrow().clone();
    assert_eq!(identity.node.as_str(), "edge-1");
    assert_eq!(identity.addresses, ips(&["10.0.0.1", "fd00::1"]));
    assert_eq!(identity.key.as_str(), "edge-1");
}

#[tokio::test]
async fn a_certificate_of_another_node_is_not_used_and_the_agent_waits() {
    let test = Test::new();
    test.store("edge-2", &["10.0.0.1"], OffsetDateTime::now_utc());
    test.names
        .send_replace(Some(names(&["edge-1"], &["10.0.0.1"])));
    let shutdown = CancellationToken::new();
    let heard = Mutex::new(String::new());
    let watch_logger = |reason: String| {
        *heard.lock().unwrap() = reason;
        shutdown.cancel();
    };
    let establishing =
        AgentCredentials::establish(node(), test.options(), &watch_logger, &shutdown);
    let outcome = timeout(PATIENCE, establishing).await.unwrap();
    assert!(outcome.is_err());
    let heard = heard.into_inner().unwrap();
    assert!(
        heard.contains("no certificate yet: cannot ask the API server"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_change_of_addresses_changes_the_identity_with_the_certificate() {
    let test = Test::new();
    let now = OffsetDateTime::now_utc();
    test.store("edge-1", &["10.0.0.1"], now - Duration::from_mins(1));
    test.names
        .send_replace(Some(names(&["edge-1"], &["10.0.0.1"])));
    let credentials = test.establish().await;
    let mut identities = credentials.identities();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(credentials.run(shutdown.clone()));

    test.store("edge-1", &["10.0.0.2"], now);
    test.names
        .send_replace(Some(names(&["edge-1"], &["10.0.0.2"])));
    let moved = identities.wait_for(|identity| identity.addresses == ips(&["10.0.0.2"]));
    timeout(PATIENCE, moved).await.unwrap().unwrap();
    shutdown.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn another_ca_of_the_cluster_gives_sessions_another_configuration() {
    let test = Test::new();
    test.store("edge-1", &["10.0.0.1"], OffsetDateTime::now_utc());
    let credentials = test.establish().await;
    let mut configs = credentials.configs();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(credentials.run(shutdown.clone()));
    test.cas
        .send_modify(|cas| cas.push(ClusterCa::new().certificate));
    timeout(PATIENCE, configs.changed()).await.unwrap().unwrap();
    shutdown.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}
