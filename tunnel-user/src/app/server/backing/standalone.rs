//! A server without a cluster.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::Backing;
use crate::{
    model::SnapshotReader,
    pki::{AgentProof, SERVER_NAME},
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

pub(super) fn backing(
    args: &ServerArgs,
    own_addresses: OwnAddresses,
    end: &CancellationToken,
) -> anyhow::Result<Backing> {
    let now = OffsetDateTime::now_utc();
    let state = Arc::new(State::create(&args.state_dir, now)?);
    let certificate = ServerCertificate::new(Arc::clone(&state), SERVER_CERTIFICATE_LIFE, now)?;
    let (source, snapshots) = Source::new(&state, args.tunnel_ports())?;
    Ok(Backing {
        tls: certificate.configs(),
        subject: format!("CN={SERVER_NAME}"),
        validities: certificate.validities(),
        // Each standalone server stands for itself.
        server_count: watch::channel(1).1,
        proof: AgentProof::Enrolment,
        unary: enrolment(args, &state, own_addresses, snapshots.clone()),
        snapshots,
        authority: Some(state.ca().validity()),
        tasks: vec![
            (
                "following the registered nodes",
                Box::pin(source.run(end.clone())),
            ),
            (
                "renewing the server's certificate",
                Box::pin(certificate.run(end.clone())),
            ),
        ],
    })
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
