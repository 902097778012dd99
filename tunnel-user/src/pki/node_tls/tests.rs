//! What a node may show, and to whom this server shows what is its own.

use std::{slice, time::Duration};

use rcgen::ExtendedKeyUsagePurpose::{self, Any, ClientAuth, ServerAuth};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{io::duplex, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::pki::testing::TestCa;

/// Shakes hands with `edge-1` at 10.78.0.11, which shows this credential and takes any client certificate of the
/// trusted CA. Returns whether it has been shown one, or why nothing came of it.
async fn shown_to(shown: &Credential, trusted: &TestCa) -> Result<bool, String> {
    let cas = slice::from_ref(&trusted.certificate);
    let own = trusted.issue(("tunnel-proxy-client", "culvert:proxy"), &[], ClientAuth);
    let config = node_client_config(
        &"edge-1".parse().unwrap(),
        "10.78.0.11".parse().unwrap(),
        cas,
        Some(client_identity(&own).unwrap()),
    );
    let clients =
        WebPkiClientVerifier::builder_with_provider(roots(cas).unwrap().into(), provider());
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
        .with_single_cert(shown.chain.clone(), shown.key.clone_key())
        .unwrap();
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from("anything.example").unwrap();
    let connecting = TlsConnector::from(Arc::new(config.unwrap())).connect(name, near);
    let accepting = TlsAcceptor::from(Arc::new(server)).accept(far);
    let both = async { tokio::join!(accepting, connecting) };
    let (accepted, connected) = timeout(Duration::from_secs(20), both).await.unwrap();
    let has_seen = accepted.is_ok_and(|stream| stream.get_ref().1.peer_certificates().is_some());
    match connected {
        Ok(_) => Ok(has_seen),
        Err(error) => {
            assert!(!has_seen, "shown to somebody who had proved nothing");
            Err(error.to_string())
        }
    }
}

#[tokio::test]
async fn a_node_is_known_by_its_name_or_its_address_and_sees_who_asks() {
    let ca = TestCa::new();
    for (name, names) in [
        ("system:node:edge-1", &["edge-1"][..]),
        ("system:node:edge-1", &["other", "10.78.0.11"]),
        ("exporter", &["edge-1"]),
    ] {
        let kubelet = ca.issue((name, "system:nodes"), names, ServerAuth);
        assert_eq!(shown_to(&kubelet, &ca).await, Ok(true), "{name}");
    }
}

#[tokio::test]
async fn whoever_is_not_that_node_is_told_nothing() {
    const EDGE_1: &[&str] = &["edge-1", "10.78.0.11"];
    let (ca, other_ca) = (TestCa::new(), TestCa::new());
    let of_other_ca = other_ca.issue(("system:node:edge-1", ""), EDGE_1, ServerAuth);
    let of = |name, names, usage: ExtendedKeyUsagePurpose| {
        ca.issue((name, "system:nodes"), names, usage)
    };
    for (rogue, cause) in [
        (of_other_ca, "BadSignature"),
        (
            of("system:node:edge-2", &["edge-2", "10.78.0.12"], ServerAuth),
            "not valid for",
        ),
        // With the names of the first, as a kubelet might claim them.
        (
            of("system:node:edge-2", EDGE_1, ServerAuth),
            "another node than edge-1",
        ),
        (
            of("system:node:edge-1", EDGE_1, ClientAuth),
            "server authentication",
        ),
        (
            of("system:node:edge-1", EDGE_1, Any),
            "server authentication",
        ),
        (of("system:node:edge-1", &[], ServerAuth), "not valid for"),
    ] {
        let error = shown_to(&rogue, &ca).await.unwrap_err();
        assert!(error.contains(cause), "{error:?} lacks {cause:?}");
    }
}
