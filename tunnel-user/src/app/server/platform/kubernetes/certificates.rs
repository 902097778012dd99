//! The certificates of a server of a cluster: the one that agents know it by, and those by which others, servers and
//! kubelets, know it as their client.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::sync::watch;

use super::{Member, Names, until_certified};
use crate::{
    app::{certificates::follow_expiry, server::platform::HeldCertificate},
    certificates::{Issuer, PublishedCertificate},
    kubernetes::{CertificateNames, CertificateOptions, ServerCertificate},
    pki::Subject,
};

/// A certificate by which others know this server as their client, in the words of status, metrics and log.
pub(super) struct OwnClient {
    pub(super) name: &'static str,
    pub(super) subject: Subject,
    pub(super) watching: &'static str,
    pub(super) keeping: &'static str,
    pub(super) lacking: &'static str,
}

/// Nothing but its end takes such a certificate back: see SECURITY.md, "Revoke".
const LIFE: Duration = Duration::from_hours(7 * 24);

impl Member<'_> {
    /// The one that agents know the server by.
    pub(super) fn certificate(&self, names: Names) -> anyhow::Result<ServerCertificate> {
        let cluster = &self.settings.cluster;
        ServerCertificate::new(CertificateOptions {
            client: self.client(),
            cas: self.access.cas.clone(),
            cert_dir: cluster.cert_dir(&self.context.args.state_dir),
            names,
            life: None,
        })
        .context("cannot keep the server's certificate in --cert-dir")
    }

    /// Keeps it, and the condition true: there is one.
    pub(super) fn keep_certificate(&mut self, certificate: ServerCertificate) {
        let validities = certificate.validities();
        let metric = self.context.metrics.certificates.clone();
        let expiry = validities.clone();
        self.run("watching certificates", |end| {
            follow_expiry("server", expiry, metric, end)
        });
        let certified = Arc::new(self.context.readiness.register("certificate"));
        let awaited = Arc::clone(&certified);
        let has_one = validities.clone();
        let trouble = move |reason| {
            // The one in use does for now.
            if has_one.borrow().is_none() {
                awaited.not_ready(reason);
            }
        };
        self.run_in_service("keeping the server's certificate", |end| {
            certificate.run(trouble, end)
        });
        self.run("watching whether there is a certificate", |end| {
            until_certified(validities, certified, end)
        });
    }

    /// What a certificate is asked for with by which others know this server as their client: it names the machine.
    pub(super) fn own_client_options(&self) -> CertificateOptions {
        let (args, cluster) = (self.context.args, &self.settings.cluster);
        let names = CertificateNames::of_node(&self.machine, []);
        CertificateOptions {
            client: self.client(),
            cas: self.access.cas.clone(),
            cert_dir: cluster.cert_dir(&args.state_dir),
            names: watch::channel(Some(names)).1,
            life: Some(args.agent_certificate_ttl.min(LIFE)),
        }
    }

    /// Keeps such a certificate.
    pub(super) fn keep_own_client<I, C>(
        &mut self,
        what: &OwnClient,
        certificate: PublishedCertificate<I, C>,
    ) -> HeldCertificate
    where
        I: Issuer + 'static,
        C: Send + Sync + 'static,
    {
        let OwnClient {
            name,
            subject,
            watching,
            keeping,
            lacking,
        } = *what;
        let validity = certificate.validities();
        let (expiry, metric) = (validity.clone(), self.context.metrics.certificates.clone());
        self.run(watching, |end| follow_expiry(name, expiry, metric, end));
        let trouble = move |reason| tracing::info!(reason, "{lacking}");
        self.run_in_service(keeping, |end| certificate.run(trouble, end));
        HeldCertificate {
            name,
            subject: subject.to_string(),
            validity,
        }
    }
}
