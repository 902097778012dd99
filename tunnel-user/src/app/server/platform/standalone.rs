//! A server without a cluster.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use time::OffsetDateTime;
use tokio::sync::watch;
use tower_service::Service as _;

use super::{HeldCertificate, Platform, PlatformContext, authority};
use crate::{
    app::certificates::follow_expiry,
    model::SnapshotReader,
    pki::{AgentProof, SERVER_NAME, Validity},
    settings::ServerArgs,
    standalone::{
        EnrolmentService, SERVER_CERTIFICATE_LIFE, ServerCertificate, Source, State,
        proto::enrolment_server::EnrolmentServer,
    },
    tunnel::server::UnaryService,
};

/// A certificate request and a hundred addresses take less; anyone may send one.
const LARGEST_CALL: usize = 64 * 1024;

type OwnAddresses = watch::Receiver<Arc<BTreeSet<IpAddr>>>;

pub(super) async fn platform(context: &PlatformContext<'_>) -> anyhow::Result<Platform> {
    let PlatformContext {
        args, addresses, ..
    } = *context;
    let now = OffsetDateTime::now_utc();
    let state = Arc::new(State::create(&args.state_dir, now)?);
    let certificate = ServerCertificate::new(Arc::clone(&state), SERVER_CERTIFICATE_LIFE).await?;
    let (source, snapshots) = Source::new(
        &state,
        args.tunnel_ports(),
        args.node_networks.iter().copied().collect(),
    )?;
    Ok(Platform {
        tls: certificate.configs(),
        certificates: vec![HeldCertificate {
            name: "server",
            subject: format!("CN={SERVER_NAME}"),
            validity: certificate.validities(),
        }],
        authority: Some(state.ca().validity()),
        // Each standalone server stands for itself.
        server_count: watch::channel(1).1,
        relay: None,
        termination: None,
        proof: AgentProof::Enrolment,
        unary: enrolment(args, &state, addresses.subscribe(), snapshots.clone()),
        snapshots,
        services: None,
        known: async {}.boxed().shared(),
        certified: async {}.boxed().shared(),
        cluster_clients: watch::Sender::default().subscribe(),
        on_no_session: Arc::new(|_| {}),
        cluster: None,
        tasks: tasks(context, source, certificate, state.ca().validity()),
    })
}

fn tasks(
    context: &PlatformContext<'_>,
    source: Source,
    certificate: ServerCertificate,
    ca: Validity,
) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
    let PlatformContext {
        metrics,
        readiness,
        end,
        ..
    } = *context;
    let expiry = follow_expiry(
        "server",
        certificate.validities(),
        metrics.certificates.clone(),
        end.clone(),
    );
    let clock = authority::compare_with_clock(ca, readiness.register("ca"), end.clone());
    vec![
        (
            "following the registered nodes",
            Box::pin(source.run(end.clone())),
        ),
        (
            "renewing the server's certificate",
            Box::pin(certificate.run(|_| {}, end.clone())),
        ),
        ("comparing the CA with the clock", Box::pin(clock)),
        ("watching certificates", Box::pin(expiry)),
    ]
}

fn enrolment(
    args: &ServerArgs,
    state: &Arc<State>,
    own_addresses: OwnAddresses,
    snapshots: SnapshotReader,
) -> UnaryService {
    let service = EnrolmentService::new(
        Arc::clone(state),
        args.agent_certificate_ttl,
        Arc::new(move |ip| own_addresses.borrow().contains(&ip)),
    )
    .in_networks(args.node_networks.iter().copied().collect())
    .published_by(snapshots);
    let service = EnrolmentServer::new(service).max_decoding_message_size(LARGEST_CALL);
    Arc::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            let Ok(response) = service.call(request).await;
            response
        })
    })
}
