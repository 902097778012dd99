//! A server of a Kubernetes cluster.
//!
//! ```text
//!  Election --leading--> Source, Approver        who may write to the cluster
//!  Source --snapshots--> the server, Approver    which nodes there are
//!  ServiceSource --Services--> the server        which Services lead to them
//!  ServerNames --names--> ServerCertificate, Approver
//!  Membership --server count--> the agents
//!             \--other servers--> Relay
//!  Source --every Node, ports--> Publication     names and ports for clients that dial by name
//! ```

mod certificates;
mod client_trust;
mod cluster_status;
mod relay;
mod termination;

use std::{future::Future, sync::Arc};

use anyhow::Context as _;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::Response;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use self::cluster_status::ClusterView;
use super::{HeldCertificate, Platform, PlatformContext};
use crate::{
    kubernetes::{
        Access, ApprovalCounts, Approver, ApproverOptions, CertificateNames, Election, Members,
        Membership, MembershipOptions, ObjectName, Publication, PublicationOptions,
        PublicationReader, SERVER_SUBJECT, ServerNames, ServerNamesOptions, ServiceReaders,
        ServiceSource,
        events::Events,
        source::{Listing, LiveSessions, Source, SourceHealth, SourceOptions},
    },
    model::{AddressRanges, ListeningPorts, NodeName, SnapshotReader},
    observability::readiness::Condition,
    pki::{AgentProof, Validity},
    settings::ServerKubernetesArgs,
    wait::wait_for,
};

/// The Lease that the leader of the servers holds.
const LEADER_LEASE: &str = "culvert-server";

type Leading = watch::Receiver<bool>;
type Names = watch::Receiver<Option<CertificateNames>>;
type Listings = watch::Receiver<Option<Arc<Listing>>>;

/// Prepares everything. The API server is first asked by the tasks, and need not be there.
pub(super) async fn platform(context: PlatformContext<'_>) -> anyhow::Result<Platform> {
    let settings = &context.args.kubernetes;
    let cluster = &settings.cluster;
    let (access, files) =
        Access::new(cluster.kubeconfig.as_deref(), cluster.api_server.as_ref()).await?;
    let mut member = Member {
        access,
        machine: settings.node_name()?,
        settings,
        context,
        tasks: Vec::new(),
    };
    member.run("reloading credential files", |end| files.run(end));
    if settings.relay_only {
        return member.relay_only();
    }
    let (leading, leader) = member.election();
    let events = member.events();
    let Followed {
        snapshots,
        clients,
        health,
        listings,
    } = member.nodes(&events, leading.clone())?;
    let services = member.services(&snapshots);
    let published = member.publication(listings, &events, leading.clone());
    let names = member.names();
    let certificate = member.certificate(names.clone())?;
    let members = member.members(certificate.validities()).await?;
    let server_count = members.count;
    let (relay, relays) = member.relay(members.others)?;
    let approvals = member.approvals(snapshots.clone(), names.clone(), leading.clone());
    let (tls, validities) = (certificate.configs(), certificate.validities());
    let termination = member.termination(&tls, names)?;
    member.keep_certificate(certificate);
    let (mut followed, mut awaited) = (health.clone(), validities.clone());
    let known = async move { wait_for(&mut followed, |health| health.ready().is_ok()).await };
    let certified = async move { wait_for(&mut awaited, Option::is_some).await };
    let view = ClusterView {
        health,
        leading,
        leader,
        server_count: server_count.clone(),
        events: events.clone(),
        approvals,
        published,
    };
    let mut certificates = vec![
        HeldCertificate {
            name: "server",
            subject: SERVER_SUBJECT.to_string(),
            validity: validities,
        },
        relays,
    ];
    let termination = termination.map(|(access, held)| {
        certificates.push(held);
        access
    });
    Ok(Platform {
        snapshots,
        services,
        cluster_clients: clients,
        known: known.boxed().shared(),
        certified: certified.boxed().shared(),
        tls,
        certificates,
        termination,
        authority: None,
        server_count,
        relay: Some(relay),
        proof: AgentProof::ClusterSubject,
        unary: Arc::new(|_| Box::pin(async { no_enrolment() })),
        on_no_session: Arc::new(move |node| events.no_session(node)),
        cluster: Some(Arc::new(move || view.status())),
        tasks: member.tasks,
    })
}

/// What is followed of the cluster.
struct Followed {
    snapshots: SnapshotReader,
    clients: watch::Receiver<Arc<AddressRanges>>,
    health: watch::Receiver<SourceHealth>,
    listings: Listings,
}

/// A server on its way into the cluster: makes the parts, and collects what they run.
struct Member<'a> {
    access: Access,
    machine: NodeName,
    settings: &'a ServerKubernetesArgs,
    context: PlatformContext<'a>,
    tasks: Vec<(&'static str, BoxFuture<'static, ()>)>,
}

impl Member<'_> {
    fn client(&self) -> kube::Client {
        self.access.client.clone()
    }

    fn lease_namespace(&self) -> String {
        let given = self.settings.lease_namespace.clone();
        given.unwrap_or_else(|| self.access.namespace.clone())
    }

    /// Runs what speaks for this machine's server, until it takes no more clients: then its
    /// successor does.
    fn run_in_service<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.context.leaving.clone());
        self.run(name, |end| async move {
            task.await;
            end.cancelled().await;
        });
    }

    fn run<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.context.end.clone());
        self.tasks.push((name, Box::pin(task)));
    }

    fn election(&mut self) -> (Leading, watch::Receiver<Option<String>>) {
        let lease = ObjectName {
            namespace: self.lease_namespace(),
            name: LEADER_LEASE.to_owned(),
        };
        let election = Election::new(self.client(), lease, self.machine.as_str());
        let (leading, leader) = (election.leading(), election.leader());
        self.run_in_service("electing a leader", |end| election.run(end));
        (leading, leader)
    }

    fn events(&mut self) -> Events {
        let (events, writer) = Events::new(self.client(), self.machine.as_str());
        self.run_in_service("writing Events", |end| writer.run(end));
        events
    }

    fn nodes(&mut self, events: &Events, leading: Leading) -> anyhow::Result<Followed> {
        let args = self.context.args;
        let (host, api_server) = self.access.api_server();
        self.run("following the API server's name", |end| host.run(end));
        let sessions = self.context.sessions.clone();
        let (source, snapshots, health) = Source::new(SourceOptions {
            client: self.client(),
            selectors: self.settings.node_selector.clone(),
            ports_config: self.settings.cluster.ports_config.clone(),
            extra_ports: args.ports.iter().copied().collect(),
            reserved_ports: args.own_port_set(),
            node_networks: args.node_networks.iter().copied().collect(),
            kubelet_ports: self.settings.kubelet_ports.iter().copied().collect(),
            api_server,
            sessions: LiveSessions {
                changes: sessions.changes(),
                name: Arc::new(move |node, address| sessions.has_address(node, address)),
            },
            state_dir: args.state_dir.clone(),
            events: events.clone(),
            leading,
            cloud_nodes: self.context.metrics.cloud_nodes.clone(),
        })
        .context("cannot keep what is known of the cluster in --state-dir")?;
        let (clients, listings) = (source.clients(), source.listings());
        let in_service = self.context.leaving.clone();
        self.run("following the cluster's nodes", |end| {
            source.run(in_service, end)
        });
        let known = self.context.readiness.register("nodes");
        let followed = health.clone();
        self.run("watching whether nodes are known", |end| {
            until_known(followed, known, end)
        });
        Ok(Followed {
            snapshots,
            clients,
            health,
            listings,
        })
    }

    /// `None` where connects to Services are left to kube-proxy.
    fn services(&mut self, snapshots: &SnapshotReader) -> Option<ServiceReaders> {
        if !self.settings.catch_services {
            return None;
        }
        let (source, readers) = ServiceSource::new(self.client(), snapshots.clone());
        self.run("following the cluster's Services", |end| source.run(end));
        Some(readers)
    }

    /// `None` where nobody is to dial nodes by name.
    fn publication(
        &mut self,
        listings: Listings,
        events: &Events,
        leading: Leading,
    ) -> Option<PublicationReader> {
        if !self.settings.publish_names {
            return None;
        }
        let (publication, published) = Publication::new(PublicationOptions {
            client: self.client(),
            dns_config: self.settings.dns_config.clone(),
            internal_service: self.settings.internal_service.clone(),
            listening: ListeningPorts {
                https: self.context.args.https_port(),
                http: self.context.args.http_port(),
                own: self.context.args.own_port_set(),
            },
            listings,
            events: events.clone(),
            leading,
        });
        self.run_in_service("publishing names", |end| publication.run(end));
        Some(published)
    }

    fn names(&mut self) -> Names {
        let (server_names, names) = ServerNames::new(ServerNamesOptions {
            client: self.client(),
            service: self.settings.cluster.service.clone(),
            internal_service: self.settings.internal_service.clone(),
            dns: self.settings.cert_dns_names.clone(),
            ips: self.settings.cert_ips.clone(),
        });
        self.run("following the servers' names", |end| server_names.run(end));
        names
    }

    /// Agents look for a server as soon as it is counted: not before it can take them.
    async fn members(
        &mut self,
        mut validities: watch::Receiver<Option<Validity>>,
    ) -> anyhow::Result<Members> {
        let (membership, members) = Membership::new(MembershipOptions {
            client: self.client(),
            namespace: self.lease_namespace(),
            machine: self.machine.clone(),
            counts: true,
            server_id: self.context.server_id.to_owned(),
            address: self.relay_address().await?,
        });
        let in_charge = self.context.in_charge.clone();
        self.run_in_service("counting servers", |end| async move {
            let certified = wait_for(&mut validities, Option::is_some);
            if end.run_until_cancelled(certified).await.is_some() {
                membership.run(in_charge, end.clone()).await;
            }
        });
        Ok(members)
    }

    /// `None` where somebody else approves.
    fn approvals(
        &mut self,
        snapshots: SnapshotReader,
        names: Names,
        leading: Leading,
    ) -> Option<ApprovalCounts> {
        if !self.settings.approve_certificates {
            return None;
        }
        let counts = ApprovalCounts::default();
        let approver = Approver::new(ApproverOptions {
            client: self.client(),
            snapshots,
            names,
            agents: self.settings.agent_service_account.clone(),
            relays: self.settings.relay_service_account.clone(),
            for_kubelets: self.context.args.termination.https_terminate,
            longest_life: self.context.args.agent_certificate_ttl,
            leading,
            counts: counts.clone(),
        });
        self.run_in_service("approving certificates", |end| approver.run(end));
        Some(counts)
    }
}

/// Keeps the condition true: there is a snapshot to serve.
async fn until_known(
    mut health: watch::Receiver<SourceHealth>,
    known: Condition,
    end: CancellationToken,
) {
    loop {
        match health.borrow_and_update().ready() {
            Ok(()) => known.ready(),
            Err(reason) => known.not_ready(reason),
        }
        tokio::select! {
            changed = health.changed() => if changed.is_err() {
                return end.cancelled().await;
            },
            () = end.cancelled() => return,
        }
    }
}

/// Keeps the condition true once there is a certificate: agents can come.
async fn until_certified(
    mut validities: watch::Receiver<Option<Validity>>,
    certified: Arc<Condition>,
    end: CancellationToken,
) {
    let has_one = wait_for(&mut validities, Option::is_some);
    if end.run_until_cancelled(has_one).await.is_some() {
        certified.ready();
    }
    end.cancelled().await;
}

fn no_enrolment() -> Response<Body> {
    Status::unimplemented(
        "this server belongs to a Kubernetes cluster, which certifies its agents: run \
         `culvert agent --kubernetes`",
    )
    .into_http()
}
