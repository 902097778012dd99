//! Which ranges of local addresses serve clients on this machine, and from where nothing arrives.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::{
    task::block_in_place,
    time::{Instant, interval, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{client_sockets::ClientSockets, yurt_tunnel::YurtTunnelRules};
use crate::{
    app::node_table::SharedRedirect,
    observability::chain,
    redirect::{LocalRanges, NamespaceReader, OriginalDestinations, addresses::local_route},
    settings::ServerArgs,
};

/// A predecessor that was told to stop accepting has done so after this time.
const PREDECESSOR_ACCEPTS: Duration = Duration::from_secs(3);
/// How often notes are looked through for those that are of no use any more, and routes for those that are
/// gone.
const SWEEP: Duration = Duration::from_secs(30);
/// How often the kernel is asked from where nothing arrives.
const LOOK: Duration = Duration::from_secs(1);
/// A namespace from which nothing arrived gets another try every few seconds: it is forgiven only
/// after several.
const FORGIVEN_AFTER: Duration = Duration::from_secs(15);

/// Routes the ranges that need it. One that cannot be is left out, and its clients are served by notes.
pub(super) async fn route(
    args: &ServerArgs,
    own_addresses: &BTreeSet<IpAddr>,
    yurt_tunnel: &YurtTunnelRules,
) -> anyhow::Result<LocalRanges> {
    let mut ranges = yurt_tunnel.leave(args.ranges()?);
    let has_v6 = own_addresses
        .iter()
        .any(|ip| ip.is_ipv6() && !ip.is_loopback());
    ranges.v6 = ranges.v6.filter(|_| has_v6);
    let ranges = local_route::add_all(ranges, |range, error| {
        tracing::warn!(
            %range, error = chain(&error),
            "the range cannot be used, its clients are served by notes under 4-tuples: name a free \
             network with --pod-ranges, or none",
        );
    })
    .await;
    let name = |net: Option<String>| net.unwrap_or_else(|| "none: noted by 4-tuple".to_owned());
    tracing::info!(
        host = name(ranges.host.map(|net| net.to_string())),
        pods = name(ranges.pods.map(|net| net.to_string())),
        ipv6 = name(ranges.v6.map(|net| net.to_string())),
        "addresses that stand for nodes",
    );
    Ok(ranges)
}

/// Puts routes back that somebody else has removed.
pub(super) async fn keep_routed(ranges: LocalRanges, end: CancellationToken) {
    // They have just been put there.
    let mut look = interval_at(Instant::now() + SWEEP, SWEEP);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = end.cancelled() => return,
        }
        local_route::add_all(ranges, |range, error| {
            tracing::warn!(
                %range, error = chain(&error),
                "the range is not routed to this machine any more: its clients reach no node",
            );
        })
        .await;
    }
}

/// Lets the ranges be used once a predecessor of another version, which knows of none, accepts no longer.
pub(super) async fn use_when_alone(redirect: SharedRedirect, end: CancellationToken) {
    tokio::select! {
        () = sleep(PREDECESSOR_ACCEPTS) => {
            if let Err(error) = redirect.lock().use_ranges() {
                tracing::warn!(%error, "the addresses that stand for nodes cannot be used");
            }
        }
        () = end.cancelled() => return,
    }
    end.cancelled().await;
}

/// Follows from where nothing arrives, and tells.
pub(super) struct Unreached {
    pub(super) namespaces: NamespaceReader,
    pub(super) original_dsts: OriginalDestinations,
    pub(super) sockets: ClientSockets,
}

impl Unreached {
    pub(super) async fn run(self, end: CancellationToken) {
        let mut look = interval(LOOK);
        let mut sweep = interval(SWEEP);
        let mut last_seen: Option<Instant> = None;
        let mut told = false;
        loop {
            tokio::select! {
                _ = look.tick() => {}
                _ = sweep.tick() => {
                    self.sweep();
                    continue;
                }
                () = end.cancelled() => return,
            }
            let count = match block_in_place(|| self.namespaces.read()) {
                Ok(namespaces) => namespaces.unreached,
                Err(error) => {
                    tracing::debug!(%error, "cannot read from where nothing arrives");
                    continue;
                }
            };
            if count > 0 {
                last_seen = Some(Instant::now());
                if !told {
                    tracing::warn!(
                        namespaces = count, listeners = ?self.sockets.addresses(),
                        "connects from other network namespaces, of pods mostly, do not arrive: a firewall of \
                         this machine or a NetworkPolicy drops them? Let what comes from pods in to these \
                         listeners, --pod-ranges, and the range of IPv6",
                    );
                }
                told = true;
            } else if told && last_seen.is_none_or(|seen| seen.elapsed() > FORGIVEN_AFTER) {
                tracing::info!("nothing is known any more to be kept from arriving");
                told = false;
            }
        }
    }

    fn sweep(&self) {
        match block_in_place(|| self.original_dsts.forget_obsolete()) {
            Ok(0) => {}
            Ok(connects) => tracing::debug!(connects, "forgot connects that never arrived"),
            Err(error) => tracing::warn!(%error, "cannot look through noted connects"),
        }
    }
}
