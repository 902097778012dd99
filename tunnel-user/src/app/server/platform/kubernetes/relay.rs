//! How a server of a cluster has connections carried by the others: where they are, and what proves it to them.

use anyhow::Context as _;
use tokio::sync::watch;

use super::Member;
use crate::{
    app::{certificates::follow_expiry, server::platform::RelayAccess},
    kubernetes::{CertificateNames, CertificateOptions, RelayCertificate},
    model::ServerAddr,
    redirect::addresses::Surroundings,
    tunnel::RelayServer,
};

impl Member<'_> {
    /// Where the others reach this server's agent port: as given, or by this machine's primary address.
    pub(super) async fn relay_address(&self) -> anyhow::Result<Option<ServerAddr>> {
        let ip = match self.settings.relay_address {
            Some(ip) => Some(ip),
            None => Surroundings::read().await?.primary(),
        };
        Ok(ip.map(|ip| (ip, self.context.args.agent_port).into()))
    }

    /// Asks for the certificate and keeps it.
    pub(super) fn relay(
        &mut self,
        servers: watch::Receiver<Vec<RelayServer>>,
    ) -> anyhow::Result<RelayAccess> {
        let (args, cluster) = (self.context.args, &self.settings.cluster);
        let names = CertificateNames::of_node(&self.machine, []);
        let options = CertificateOptions {
            client: self.client(),
            cas: self.access.cas.clone(),
            cert_dir: cluster.cert_dir(&args.state_dir),
            names: watch::channel(Some(names)).1,
            life: Some(args.agent_certificate_ttl),
        };
        let certificate = RelayCertificate::new(self.machine.clone(), options)
            .context("cannot keep the relay's certificate in --cert-dir")?;
        let (tls, validities) = (certificate.configs(), certificate.validities());
        let metric = self.context.metrics.certificates.clone();
        self.run("watching the relay's certificate", |end| {
            follow_expiry("relay", validities, metric, end)
        });
        let trouble = |reason| {
            tracing::debug!(
                reason,
                "no certificate yet by which other servers know this one"
            );
        };
        self.run_in_service("keeping the relay's certificate", |end| {
            certificate.run(trouble, end)
        });
        Ok(RelayAccess { servers, tls })
    }
}
