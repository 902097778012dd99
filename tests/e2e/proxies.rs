//! The way to the API server leads through a proxy where the environment names one, and around it where that says so.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use crate::stage::{Stage, accept};

/// Nobody answers there: it matters who is asked.
const API_SERVER: &str = "10.77.0.1:6443";
const PROXY: &str = "10.77.0.1:3128";

/// A kubeconfig of that API server, which has a CA and a token.
pub(crate) fn kubeconfig(stage: &Stage) -> PathBuf {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = ca.self_signed(&KeyPair::generate().unwrap()).unwrap();
    fs::write(stage.path("ca.crt"), ca.pem()).unwrap();
    let file = stage.path("kubeconfig");
    let content = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts: [{{ name: here, context: {{ cluster: here, user: me }} }}]\n\
         clusters: [{{ name: here, cluster: {{ server: 'https://{API_SERVER}', certificate-authority: ca.crt }} }}]\n\
         users: [{{ name: me, user: {{ token: secret }} }}]\n"
    );
    fs::write(&file, content).unwrap();
    file
}

/// What the server says first to whom it turns, with these variables set.
fn first_words(no_proxy: &str, listens: &str, length: usize) -> Vec<u8> {
    let stage = Stage::new();
    let kubeconfig = kubeconfig(&stage);
    let bind = || TcpListener::bind(listens);
    let listener = stage.control().run(bind).unwrap();
    let server = stage
        .site
        .server()
        .words("--kubernetes --node-name control");
    let server = server
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .env("HTTPS_PROXY", format!("http://{PROXY}"))
        .env("NO_PROXY", no_proxy);
    let _server = server.start().unwrap();
    let mut asked = accept(&listener);
    let mut words = vec![0; length];
    asked.read_exact(&mut words).unwrap();
    words
}

#[test]
fn the_proxy_of_the_environment_is_asked_for_the_api_server() {
    let line = format!("CONNECT {API_SERVER} HTTP/1.1\r\n");
    let words = first_words("10.78.0.0/16,10.77.0.9", PROXY, line.len());
    assert_eq!(String::from_utf8_lossy(&words), line);
}

#[test]
fn the_api_server_is_asked_itself_where_no_proxy_has_its_network() {
    let words = first_words("localhost,10.77.0.0/16", API_SERVER, 1);
    assert_eq!(words, [22], "a TLS handshake");
}
