//! How a server of a cluster has connections carried by the others: where they are, and what proves it to them. One
//! that takes no agents has nothing else.

use std::sync::Arc;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::{
    Followed, Member, certificates::OwnClient, cluster_status::ClusterView, no_enrolment,
    until_certified,
};
use crate::{
    app::server::platform::{HeldCertificate, Platform, RelayAccess},
    kubernetes::{Members, Membership, MembershipOptions, RelayCertificate},
    model::ServerAddr,
    pki::{AgentProof, RELAY_SUBJECT, server_config_without_certificate},
    redirect::addresses::Surroundings,
    tunnel::RelayServer,
    wait::wait_for,
};

impl Member<'_> {
    /// A server that takes no agents. It never leads, and is not counted.
    pub(super) fn relay_only(mut self) -> anyhow::Result<Platform> {
        let leading = self.never();
        let events = self.events();
        let Followed {
            snapshots,
            clients,
            health,
            ..
        } = self.nodes(&events, leading.clone())?;
        let services = self.services(&snapshots);
        let members = self.other_members();
        let (relay, held) = self.relay(members.others)?;
        let validities = held.validity.clone();
        let certified = Arc::new(self.context.readiness.register("certificate"));
        certified.not_ready("the cluster has not signed the relay's certificate yet");
        let has_one = validities.clone();
        self.run("watching whether there is a certificate", |end| {
            until_certified(has_one, certified, end)
        });
        let (mut followed, mut awaited) = (health.clone(), validities);
        let known = async move { wait_for(&mut followed, |health| health.ready().is_ok()).await };
        let certified = async move { wait_for(&mut awaited, Option::is_some).await };
        let view = ClusterView {
            health,
            leading,
            leader: watch::channel(None).1,
            server_count: members.count.clone(),
            events,
            approvals: None,
            published: None,
        };
        Ok(Platform {
            snapshots,
            services,
            cluster_clients: clients,
            known: known.boxed().shared(),
            certified: certified.boxed().shared(),
            tls: watch::channel(Arc::new(server_config_without_certificate()?)).1,
            certificates: vec![held],
            authority: None,
            server_count: members.count,
            relay: Some(relay),
            termination: None,
            proof: AgentProof::ClusterSubject,
            unary: Arc::new(|_| Box::pin(async { no_enrolment() })),
            // It may not write Events; its log has it.
            on_no_session: Arc::new(|_| {}),
            cluster: Some(Arc::new(move || view.status())),
            tasks: self.tasks,
        })
    }

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
    ) -> anyhow::Result<(RelayAccess, HeldCertificate)> {
        let certificate = RelayCertificate::new(self.machine.clone(), self.own_client_options())
            .context("cannot keep the relay's certificate in --cert-dir")?;
        let tls = certificate.configs();
        let held = self.keep_own_client(
            &OwnClient {
                name: "relay",
                subject: RELAY_SUBJECT,
                watching: "watching the relay's certificate",
                keeping: "keeping the relay's certificate",
                lacking: "no certificate yet by which other servers know this one",
            },
            certificate,
        );
        Ok((RelayAccess { servers, tls }, held))
    }

    /// The servers that take agents, as seen by one that does not.
    fn other_members(&mut self) -> Members {
        let (membership, members) = Membership::new(MembershipOptions {
            client: self.client(),
            namespace: self.lease_namespace(),
            machine: self.machine.clone(),
            counts: false,
            server_id: self.context.server_id.to_owned(),
            address: None,
        });
        let in_charge = self.never();
        self.run("following the servers' Leases", |end| {
            membership.run(in_charge, end)
        });
        members
    }

    /// What never becomes true while the server runs.
    fn never(&mut self) -> watch::Receiver<bool> {
        let (never_tx, never) = watch::channel(false);
        self.run("holding that this server never leads", |end| async move {
            end.cancelled().await;
            drop(never_tx);
        });
        never
    }
}
