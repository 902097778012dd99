//! What a server of a cluster ends the TLS of clients with: the certificate that agents know it by, the API server's
//! word on who clients are, and a certificate of its own for kubelets.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::{Member, Names, certificates::OwnClient, client_trust::ClientTrust};
use crate::{
    app::server::platform::{HeldCertificate, TerminationAccess},
    frontend::{http::TargetTls, https::ClientTls},
    kubernetes::{ApiReviews, ClientCas, ProxyCertificate, authorities_of, client_authorities_of},
    observability::chain,
    pki::{PROXY_SUBJECT, terminating_server_config},
    wait::changed,
};

impl Member<'_> {
    /// `None` where no TLS is to end here: then there is no certificate for kubelets either.
    pub(super) fn termination(
        &mut self,
        agents: &watch::Receiver<Arc<ServerConfig>>,
        names: Names,
    ) -> anyhow::Result<Option<(TerminationAccess, HeldCertificate)>> {
        if !self.context.args.termination.https_terminate {
            return Ok(None);
        }
        let certificate = ProxyCertificate::new(self.machine.clone(), self.own_client_options())
            .context("cannot keep the certificate for kubelets in --cert-dir")?;
        let identity = certificate.configs();
        let held = self.keep_own_client(
            &OwnClient {
                name: "proxy",
                subject: PROXY_SUBJECT,
                watching: "watching the certificate for kubelets",
                keeping: "keeping the certificate for kubelets",
                lacking: "no certificate yet by which kubelets know this server",
            },
            certificate,
        );
        let access = TerminationAccess {
            tls: self.client_tls(agents.clone())?,
            is_own_name: Arc::new(move |name| {
                let names = names.borrow();
                let mut own = names.iter().flat_map(|names| &names.dns);
                own.any(|own| own.eq_ignore_ascii_case(name))
            }),
            reviews: Arc::new(ApiReviews::new(self.client())),
            targets: TargetTls {
                cas: self.kubelet_cas()?,
                identity,
            },
        };
        Ok(Some((access, held)))
    }

    /// What clients meet, as the server's certificate and the CAs of clients change.
    fn client_tls(
        &mut self,
        mut agents: watch::Receiver<Arc<ServerConfig>>,
    ) -> anyhow::Result<watch::Receiver<ClientTls>> {
        let mut cas = self.client_cas()?;
        let mut trust = ClientTrust::new(cas.borrow_and_update().clone());
        let first = terminating_server_config(&agents.borrow_and_update(), &cas.borrow());
        let first = ClientTls {
            config: Arc::new(first.context("cannot verify clients by these CAs")?),
            withdrawn: trust.withdrawn(),
        };
        // this --configuration--> the HTTPS frontend
        let (tls_tx, tls) = watch::channel(first);
        self.run(
            "following the certificate that clients see",
            |end| async move {
                loop {
                    tokio::select! {
                        () = changed(&mut agents) => {}
                        () = changed(&mut cas) => {}
                        () = end.cancelled() => return,
                    }
                    let now = cas.borrow().clone();
                    let config = match terminating_server_config(&agents.borrow(), &now) {
                        Ok(config) => Arc::new(config),
                        Err(error) => {
                            tracing::error!(
                                error = chain(&error),
                                "cannot verify clients by these CAs: those before are in use",
                            );
                            continue;
                        }
                    };
                    let withdrawn = trust.replace(now);
                    tls_tx.send_replace(ClientTls {
                        config,
                        withdrawn: trust.withdrawn(),
                    });
                    // Whoever hears of it finds the new ones in use.
                    if let Some(withdrawn) = withdrawn {
                        withdrawn.cancel();
                    }
                }
            },
        );
        Ok(tls)
    }

    /// Those of --client-ca, as it is at the start; else those of the API server's own clients, as they change.
    fn client_cas(&mut self) -> anyhow::Result<watch::Receiver<Vec<CertificateDer<'static>>>> {
        if let Some(file) = &self.context.args.termination.client_ca {
            let cas = client_authorities_of(file).context("cannot use --client-ca")?;
            return Ok(watch::channel(cas).1);
        }
        let (published, cas) = ClientCas::new(self.client());
        self.run("following the CAs of clients", |end| published.run(end));
        Ok(cas)
    }

    /// Those of --kubelet-ca, as it is at the start; else the cluster's, as they change.
    fn kubelet_cas(&self) -> anyhow::Result<watch::Receiver<Vec<CertificateDer<'static>>>> {
        let Some(file) = &self.context.args.termination.kubelet_ca else {
            return Ok(self.access.cas.clone());
        };
        let cas = authorities_of(file).context("cannot use --kubelet-ca")?;
        Ok(watch::channel(cas).1)
    }
}
