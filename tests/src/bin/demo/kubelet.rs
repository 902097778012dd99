//! The program on the edge that stands for the kubelet: openssl's own TLS server. Culvert has no part in it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use culvert_tests::{Daemon, Edge, Launch, command};

use crate::screen;

/// A TLS server on port 10250 of the edge node, and the certificate it shows.
pub(crate) struct Kubelet {
    _server: Daemon,
    certificate: PathBuf,
}

impl Kubelet {
    pub(crate) fn start(edge: &Edge, directory: &Path) -> Result<Self> {
        let certificate = directory.join("kubelet.pem");
        let key = directory.join("kubelet.key");
        make_certificate(edge, &certificate, &key)?;
        screen::command(
            "edge",
            "openssl s_server -www -accept 10250 -cert kubelet.pem -key kubelet.key",
        );
        let server = Launch::new(edge.namespace(), "openssl")
            .words("s_server -www -accept 10250")
            .arg("-cert")
            .arg(&certificate)
            .arg("-key")
            .arg(&key);
        let mut server = server.start()?;
        screen::output(&server.wait_for_line("ACCEPT", culvert_tests::site::PATIENCE)?);
        Ok(Self {
            _server: server,
            certificate,
        })
    }

    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// SHA-256 of the certificate, as openssl prints it.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        fingerprint(&self.certificate)
    }
}

/// SHA-256 of the first certificate in a PEM file.
pub(crate) fn fingerprint(file: &Path) -> Result<String> {
    let file = file.to_string_lossy();
    let words = ["x509", "-noout", "-fingerprint", "-sha256", "-in", &file];
    Ok(command::run("openssl", words)?.trim().to_owned())
}

fn make_certificate(edge: &Edge, certificate: &Path, key: &Path) -> Result<()> {
    let names = format!(
        "subjectAltName=DNS:edge-1,IP:{},IP:{}",
        edge.ipv4(),
        edge.ipv6()
    );
    let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
    let words = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/O=the edge node itself/CN=edge-1",
        "-addext",
        &names,
        "-out",
        &certificate,
        "-keyout",
        &key,
    ];
    command::run("openssl", words).map(drop)
}
