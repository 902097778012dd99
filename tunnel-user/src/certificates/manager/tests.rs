//! Keys and files, with an issuer that answers as it is told to.

use std::{fs, path::PathBuf, sync::Mutex, time::Duration};

use anyhow::bail;
use rcgen::PublicKeyData as _;

use super::*;
use crate::pki::{Ca, PrivateDir, SERVER_NAME, SubjectKey, Validity};

const CLUSTER: Signer = Signer::Cluster { exact: true };

#[derive(Clone, Copy, Debug)]
enum Answer {
    None,
    Refusal,
    Certificate,
    /// A certificate, and the directory is gone when it comes.
    CertificateTooLate,
}

/// A directory, and those who have asked for a certificate that is kept in it.
struct Test {
    dir: tempfile::TempDir,
    signer: Signer,
    ca: Ca,
    keys: Mutex<Vec<SubjectKey>>,
}

struct Scripted<'a> {
    test: &'a Test,
    answer: Answer,
}

impl Test {
    fn new(signer: Signer) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            signer,
            ca: Ca::generate(OffsetDateTime::now_utc()).unwrap(),
            keys: Mutex::default(),
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// What a process that has just started gets.
    async fn ask(&self, answer: Answer) -> anyhow::Result<Arc<Credential>> {
        let store = CertificateStore::new(PrivateDir::create(&self.state()).unwrap(), "server");
        let wanted = watch::channel(Some(names())).1;
        let issuer = Scripted { test: self, answer };
        let cas = watch::channel(Vec::new()).1;
        CertificateManager::new((issuer, self.signer), store, wanted, cas)
            .issue()
            .await
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Issuer for Scripted<'_> {
    fn judge(&self, _: &Credential, _: OffsetDateTime) -> Judgement {
        Ok(names())
    }

    async fn issue(&self, wanted: &Wanted<'_>, _: Trouble<'_>) -> anyhow::Result<Chain> {
        let key = SubjectKey::of(&wanted.key.subject_public_key_info());
        self.test.keys.lock().unwrap().push(key);
        match self.answer {
            Answer::None | Answer::Refusal => bail!("no certificate"),
            Answer::Certificate => {}
            Answer::CertificateTooLate => fs::remove_dir_all(self.test.state()).unwrap(),
        }
        let validity = Validity::starting(OffsetDateTime::now_utc(), Duration::from_hours(1));
        Ok(vec![
            self.test.ca.issue_server(wanted.key, validity).unwrap(),
        ])
    }

    fn is_refusal(&self, _: &anyhow::Error) -> bool {
        matches!(self.answer, Answer::Refusal)
    }
}

fn names() -> CertificateNames {
    CertificateNames {
        dns: [SERVER_NAME.to_owned()].into(),
        ..CertificateNames::default()
    }
}

#[tokio::test]
async fn a_cluster_is_asked_with_the_same_key_until_it_answers_and_then_with_another() {
    let test = Test::new(CLUSTER);
    test.ask(Answer::None).await.unwrap_err();
    assert_eq!(test.files(), ["server.pending.key"]);
    test.ask(Answer::Refusal).await.unwrap_err();
    assert!(test.files().is_empty());
    test.ask(Answer::Certificate).await.unwrap();
    assert_eq!(test.files(), ["server.pem"]);
    test.ask(Answer::Certificate).await.unwrap();
    let keys = test.keys.into_inner().unwrap();
    assert_eq!(keys[0], keys[1]);
    assert!(keys[1] != keys[2] && keys[2] != keys[3]);
}

#[tokio::test]
async fn other_signers_are_asked_with_a_new_key_and_what_waits_for_an_enrolment_stays() {
    for signer in [Signer::Own, Signer::Server] {
        let test = Test::new(signer);
        PrivateDir::create(&test.state()).unwrap();
        fs::write(test.state().join("server.pending.key"), "of an enrolment").unwrap();
        test.ask(Answer::None).await.unwrap_err();
        test.ask(Answer::Refusal).await.unwrap_err();
        test.ask(Answer::Certificate).await.unwrap();
        assert_eq!(test.files(), ["server.pem", "server.pending.key"]);
        let keys = test.keys.into_inner().unwrap();
        assert!(keys[0] != keys[1] && keys[1] != keys[2]);
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_used_where_another_one_takes_somebodys_approval() {
    for (signer, is_used) in [
        (Signer::Own, false),
        (Signer::Server, false),
        (CLUSTER, true),
    ] {
        let test = Test::new(signer);
        let outcome = test.ask(Answer::CertificateTooLate).await;
        assert_eq!(outcome.is_ok(), is_used, "{signer:?}");
    }
}
