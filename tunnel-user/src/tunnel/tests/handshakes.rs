//! What the two ends speak with each other, and with nobody else.

use std::{slice, sync::Arc};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, RootCertStore, version::TLS12};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::{io::duplex, net::TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::patiently;
use crate::{
    pki::{
        CaPin, Credential, SERVER_NAME, enrolment_client_config, new_key, provider, server_config,
    },
    tunnel::{
        Settings,
        testing::{LIFE, TestServer, identity},
    },
};

async fn connect(
    server: &TestServer,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    patiently(TlsConnector::from(config).connect(name, stream)).await
}

#[tokio::test]
async fn the_ends_speak_tls_1_3_with_a_hybrid_key_exchange() {
    let server = TestServer::start(Settings::default()).await;
    let pin = CaPin::of(server.ca.certificate()).unwrap();
    for config in [
        server.proof(&identity("edge-1", "k"), LIFE),
        Arc::new(enrolment_client_config(pin).unwrap()),
    ] {
        let stream = connect(&server, config).await.unwrap();
        let (_, connection) = stream.get_ref();
        assert_eq!(
            connection.protocol_version(),
            Some(ProtocolVersion::TLSv1_3)
        );
        let group = connection.negotiated_key_exchange_group().unwrap();
        assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    }
}

#[tokio::test]
async fn a_caller_that_speaks_tls_1_2_gets_no_further() {
    let server = TestServer::start(Settings::default()).await;
    let mut roots = RootCertStore::empty();
    roots.add(server.ca.certificate().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let error = connect(&server, Arc::new(config)).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

/// A certificate of that CA for a server, with these usages.
fn of_server(server: &TestServer, usages: Vec<ExtendedKeyUsagePurpose>) -> Credential {
    let ca_key = KeyPair::from_pem(&server.ca.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_der(server.ca.certificate(), ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into().unwrap())];
    params.extended_key_usages = usages;
    let key = new_key().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Credential::new(key, vec![leaf, server.ca.certificate().clone()]).unwrap()
}

#[tokio::test]
async fn a_server_whose_certificate_does_not_say_so_is_not_taken() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    let server = TestServer::start(Settings::default()).await;
    let cas: &[CertificateDer<'static>] = slice::from_ref(server.ca.certificate());
    let pin = CaPin::of(server.ca.certificate()).unwrap();
    for (usages, is_taken) in [
        (vec![], false),
        (vec![Any], false),
        (vec![ClientAuth], false),
        (vec![ServerAuth], true),
    ] {
        let config = server_config(&of_server(&server, usages.clone()), cas).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let agent = server.proof(&identity("edge-1", "k"), LIFE);
        for config in [agent, Arc::new(enrolment_client_config(pin).unwrap())] {
            let (near, far) = duplex(64 * 1024);
            let name = ServerName::try_from(SERVER_NAME).unwrap();
            let connector = TlsConnector::from(config);
            let (_, connected) = tokio::join!(acceptor.accept(far), connector.connect(name, near));
            assert_eq!(
                connected.is_ok(),
                is_taken,
                "{usages:?}: {:?}",
                connected.err()
            );
        }
    }
}
