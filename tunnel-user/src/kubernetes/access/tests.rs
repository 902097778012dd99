//! Kubeconfigs, good and spoilt, with certificates that openssl has made.

use std::{fs, process::Command, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error as TlsError, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::UnixTime;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::oneshot, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{kubernetes::testing::ClusterCa, pki::provider};

const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with `ca.pem`, and certificate and key of a client, `v1.pem` and `v1.key`.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca");
        for (name, key) in [
            ("v1", "ec -pkeyopt ec_paramgen_curve:P-256"),
            ("other", "rsa:2048"),
        ] {
            files.openssl(&format!(
                "req -newkey {key} -nodes -keyout {name}.key -out {name}.csr -subj /O=system:masters/CN=admin"
            ));
            files.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem"
            ));
        }
        files
    }

    fn openssl(&self, words: &str) {
        let mut openssl = Command::new("openssl");
        let ran = openssl
            .args(words.split(' '))
            .current_dir(self.0.path())
            .output();
        let ran = ran.expect("openssl is installed");
        assert!(ran.status.success(), "openssl {words}: {ran:?}");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn der(&self, name: &str) -> CertificateDer<'static> {
        use rustls_pki_types::pem::PemObject as _;
        CertificateDer::from_pem_file(self.file(name)).unwrap()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.file(name), content).unwrap();
    }

    /// A good kubeconfig with other lines in place of some.
    fn kubeconfig(&self, server: &str, changes: &[(&str, &str)]) {
        let mut text = format!(
            "apiVersion: v1
kind: Config
current-context: here
contexts:
- name: here
  context: {{ cluster: edge, user: admin }}
clusters:
- name: edge
  cluster:
    server: {server}
    certificate-authority: ca.pem
users:
- name: admin
  user:
    client-certificate: v1.pem
    client-key: v1.key
"
        );
        for (line, other) in changes {
            assert!(text.contains(line), "{line}");
            text = text.replace(line, other);
        }
        self.write("config", text);
    }

    async fn refusal(&self, changes: &[(&str, &str)]) -> String {
        self.kubeconfig("https://127.0.0.1:1", changes);
        let file = self.file("config");
        let Err(error) = Access::new(Some(&file), None).await else {
            panic!("accepted with {changes:?}");
        };
        let said = format!("{:#}", anyhow::Error::from(error));
        assert!(said.contains(file.to_str().unwrap()), "{said}");
        said
    }
}

const CA: &str = "certificate-authority: ca.pem";
const CERTIFICATE: &str = "client-certificate: v1.pem";
const KEY: &str = "client-key: v1.key";
const BOTH: &str = "    client-certificate: v1.pem\n    client-key: v1.key\n";

/// What stands in place of a good line, and what is said about it.
const SPOILT: &[((&str, &str), [&str; 3])] = &[
    (
        ("current-context: here\n", ""),
        ["current-context is not set", "here", "use-context"],
    ),
    (
        ("current-context: here", "current-context: \"\""),
        ["current-context is not set", "here", "use-context"],
    ),
    (
        ("current-context: here", "current-context: there"),
        ["\"there\"", "has here", "use-context"],
    ),
    (
        ("cluster: edge,", "cluster: ege,"),
        ["cluster", "\"ege\"", "has edge"],
    ),
    (
        ("user: admin }", "user: root }"),
        ["user", "\"root\"", "has admin"],
    ),
    (
        ("https://127.0.0.1:1", "127.0.0.1"),
        ["clusters[edge].server", "no URL", "https://10.0.0.1:6443"],
    ),
    (
        ("    server: https://127.0.0.1:1\n", ""),
        ["clusters[edge].server", "no URL", "https://10.0.0.1:6443"],
    ),
    (
        (CA, "certificate-authority: gone"),
        [
            "clusters[edge].certificate-authority",
            "/gone)",
            "correct the path",
        ],
    ),
    (
        (CA, "certificate-authority: empty"),
        [
            "clusters[edge].certificate-authority",
            "/empty)",
            "is empty",
        ],
    ),
    (
        (CA, "certificate-authority: rubbish"),
        [
            "clusters[edge].certificate-authority",
            "/rubbish)",
            "BEGIN CERTIFICATE",
        ],
    ),
    (
        (CA, "certificate-authority: damaged.pem"),
        [
            "clusters[edge].certificate-authority",
            "/damaged.pem)",
            "number 1",
        ],
    ),
    (
        (CA, "certificate-authority-data: '%'"),
        [
            "clusters[edge].certificate-authority-data",
            "not base64",
            "base64 -w0",
        ],
    ),
    (
        (CA, "certificate-authority-data: cnViYmlzaA=="),
        [
            "clusters[edge].certificate-authority-data",
            "no certificate",
            "BEGIN",
        ],
    ),
    (
        (CA, "insecure-skip-tls-verify: true"),
        ["clusters[edge]", "certificate-authority-data", "CA"],
    ),
    (
        (CERTIFICATE, "client-certificate: gone"),
        [
            "users[admin].client-certificate",
            "/gone)",
            "correct the path",
        ],
    ),
    (
        (CERTIFICATE, "client-certificate: v1.key"),
        [
            "users[admin].client-certificate",
            "/v1.key)",
            "BEGIN CERTIFICATE",
        ],
    ),
    (
        (CERTIFICATE, "client-certificate: damaged.pem"),
        [
            "users[admin].client-certificate",
            "/damaged.pem)",
            "number 1",
        ],
    ),
    (
        (CERTIFICATE, "client-certificate-data: '%'"),
        [
            "users[admin].client-certificate-data",
            "not base64",
            "client-certificate",
        ],
    ),
    (
        (KEY, "client-key: gone"),
        ["users[admin].client-key", "/gone)", "correct the path"],
    ),
    (
        (KEY, "client-key: v1.pem"),
        ["users[admin].client-key", "/v1.pem)", "no private key"],
    ),
    (
        (KEY, "client-key-data: '%'"),
        ["users[admin].client-key-data", "not base64", "client-key"],
    ),
    (
        (KEY, "client-key: other.key"),
        ["users[admin].client-key", "/other.key)", "/v1.pem)"],
    ),
    (
        (KEY, "username: admin"),
        [
            "users[admin].client-certificate",
            "has no key",
            "client-key-data",
        ],
    ),
    (
        (CERTIFICATE, "username: admin"),
        [
            "users[admin].client-key",
            "has no certificate",
            "client-certificate-data",
        ],
    ),
    (
        (BOTH, "    tokenFile: gone\n"),
        ["users[admin].tokenFile", "/gone)", "correct the path"],
    ),
    (
        (BOTH, "    tokenFile: empty\n"),
        ["users[admin].tokenFile", "/empty)", "is empty"],
    ),
    (
        (BOTH, "    tokenFile: two words\n"),
        ["users[admin].tokenFile", "/two words)", "one word"],
    ),
    (
        (
            BOTH,
            "    exec: { apiVersion: client.authentication.k8s.io/v1 }\n",
        ),
        ["users[admin].exec", "no command", "program"],
    ),
    (
        (
            BOTH,
            "    exec: { apiVersion: client.authentication.k8s.io/v1, command: /no/such, interactiveMode: Never }\n",
        ),
        ["exec", "No such file", "--kubeconfig"],
    ),
    (
        ("kind: Config", "kind: [}"),
        ["no kubeconfig", "line", "column"],
    ),
];

#[tokio::test]
async fn what_is_wrong_is_said_once_with_its_file_entry_and_a_way_out() {
    let files = Files::new();
    files.write("empty", " \n");
    files.write("rubbish", "rubbish");
    files.write("two words", "two words");
    files.write(
        "damaged.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    for (change, parts) in SPOILT {
        let said = files.refusal(&[*change]).await;
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
        for cause in [
            "No such file",
            "is not base64",
            "holds no",
            "cannot be read",
        ] {
            assert!(
                said.matches(cause).count() <= 1,
                "{cause:?} twice in {said:?}"
            );
        }
    }
    let gone = files.file("nowhere");
    let error = Access::new(Some(&gone), None).await.err().unwrap();
    let said = format!("{:#}", anyhow::Error::from(error));
    let file = gone.display().to_string();
    assert!(
        said.contains(&file) && said.contains("name another file"),
        "{said}"
    );
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
}

/// Takes any client certificate that the client has the key of, as far as this test goes.
#[derive(Debug)]
struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// An API server that is done when it has seen a client's certificate; where it is.
async fn api_server(files: &Files) -> (String, oneshot::Receiver<CertificateDer<'static>>) {
    let (ca, credential) = ClusterCa::server_of("localhost");
    files.write("ca.pem", crate::pki::certificate_pem(&ca));
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(AnyClient))
        .with_single_cert(credential.chain, credential.key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (shown_tx, shown) = oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(stream).await.unwrap();
        let certificates = stream.get_ref().1.peer_certificates().unwrap();
        shown_tx.send(certificates[0].clone().into_owned()).unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
    });
    (format!("https://localhost:{port}"), shown)
}

#[tokio::test]
async fn a_client_certificate_of_version_1_is_shown_to_the_api_server() {
    let files = Files::new();
    let certificate = files.der("v1.pem");
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    assert_eq!(parsed.version(), x509_parser::x509::X509Version::V1);
    let (server, shown) = api_server(&files).await;
    files.kubeconfig(&server, &[]);
    let (access, _files) = Access::new(Some(&files.file("config")), None)
        .await
        .unwrap();
    let asking = tokio::spawn(async move { access.client.apiserver_version().await });
    let shown = timeout(PATIENCE, shown).await.unwrap().unwrap();
    assert_eq!(shown, certificate);
    asking.abort();
}

#[tokio::test]
async fn a_client_certificate_and_a_ca_that_are_replaced_are_used_at_the_next_request() {
    let files = Files::new();
    let (server, shown) = api_server(&files).await;
    // The former ones are of no use with that API server.
    let [ca, pem, key] = ["ca.pem", "v1.pem", "v1.key"].map(|name| fs::read(files.file(name)));
    files.openssl("req -x509 -newkey rsa:2048 -nodes -keyout old.key -out ca.pem -subj /CN=old");
    for (from, to) in [("other.pem", "v1.pem"), ("other.key", "v1.key")] {
        fs::copy(files.file(from), files.file(to)).unwrap();
    }
    files.kubeconfig(&server, &[]);
    let (access, mut follower) = Access::new(Some(&files.file("config")), None)
        .await
        .unwrap();
    let former = access.cas.borrow().clone();

    files.write("ca.pem", ca.unwrap());
    files.write("v1.pem", pem.unwrap());
    follower.look().await;
    assert_eq!(
        *access.cas.borrow(),
        former,
        "key and certificate do not fit"
    );
    files.write("v1.key", key.unwrap());
    follower.look().await;
    assert_eq!(*access.cas.borrow(), [files.der("ca.pem")]);
    let asking = tokio::spawn(async move { access.client.apiserver_version().await });
    let shown = timeout(PATIENCE, shown).await.unwrap().unwrap();
    assert_eq!(shown, files.der("v1.pem"));
    asking.abort();
}

#[tokio::test]
async fn a_kubeconfig_that_names_another_api_server_takes_a_restart() {
    let files = Files::new();
    files.kubeconfig("https://10.0.0.1:6443", &[]);
    let (access, mut follower) = Access::new(Some(&files.file("config")), None)
        .await
        .unwrap();
    files.openssl("req -x509 -newkey rsa:2048 -nodes -keyout new.key -out ca.pem -subj /CN=new");
    files.kubeconfig("https://10.0.0.2:6443", &[]);
    follower.look().await;
    assert_ne!(*access.cas.borrow(), [files.der("ca.pem")]);
}
