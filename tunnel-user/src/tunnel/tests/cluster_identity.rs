//! Who an agent is in a cluster, whose CA also signs for kubelets and administrators.

use std::{slice, sync::Arc};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::patiently;
use crate::{
    pki::{Credential, SERVER_NAME, ServerProof, client_config, new_key},
    tunnel::{
        Settings,
        agent::Policy,
        testing::{PATIENCE, TestServer},
    },
};

fn no_policy() -> Policy {
    Policy::new(Vec::new(), Vec::new())
}

/// A client's certificate of the server's CA, of that subject and for that node.
pub(super) fn issued(server: &TestServer, subject: [(DnType, &str); 2], node: &str) -> Credential {
    let ca_key = KeyPair::from_pem(&server.ca.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_der(server.ca.certificate(), ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind, value);
    }
    params.subject_alt_names = vec![SanType::DnsName(node.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = new_key().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Credential::new(key, vec![leaf]).unwrap()
}

/// A kubelet's certificate: of the right CA, for the right node.
fn of_kubelet(server: &TestServer) -> Credential {
    let subject = [
        (DnType::CommonName, "system:node:edge-1"),
        (DnType::OrganizationName, "system:nodes"),
    ];
    issued(server, subject, "edge-1")
}

#[tokio::test]
async fn the_node_is_the_identity_whatever_key_its_agent_has() {
    let server = TestServer::in_cluster(Settings::default()).await;
    let before = server.agent("edge-1", "before", no_policy());
    server.until_session("edge-1").await;
    let after = server.agent("edge-1", "after", no_policy());
    let mut changes = after.servers.changes();
    patiently(async {
        while !after.servers.any_up() {
            changes.changed().await.unwrap();
        }
    })
    .await;
    before.end().await;
    after.end().await;
}

#[tokio::test]
async fn a_certificate_of_the_right_ca_that_is_no_agents_gets_nothing() {
    let server = TestServer::in_cluster(Settings::default()).await;
    let cas = slice::from_ref(server.ca.certificate());
    let config = client_config(&of_kubelet(&server), cas, ServerProof::OwnCa).unwrap();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    let mut heard = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
    // Not even HTTP/2 settings; whether the end is orderly does not matter.
    let _ = ended.expect("the server goes on listening");
    assert_eq!(heard, b"");
}
