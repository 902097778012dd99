//! One redirected client.

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::TransparentOptions;
use crate::{
    frontend::carrier::Accepted,
    model::{ARRIVED, Family, OriginalDst, is_probe_target},
    observability::metrics::Frontend,
    tunnel::{Destination, reset},
};

/// A client from accept to close.
pub(super) struct Client {
    accepted: Accepted,
    options: Arc<TransparentOptions>,
}

impl Client {
    pub(super) fn new(accepted: Accepted, options: Arc<TransparentOptions>) -> Self {
        Self { accepted, options }
    }

    /// Carries the client until it and its target have closed; `abort` resets it.
    pub(super) async fn serve(self, abort: CancellationToken) {
        let Some(original_dst) = self.original_dst() else {
            return;
        };
        if is_probe_target(original_dst.0.ip()) {
            return self.answer_probe().await;
        }
        let Self { accepted, options } = self;
        if !options.carrier.admit(&accepted) {
            return;
        }
        options.arrivals.count(Family::of(original_dst.0.ip()));
        let destination = Destination::Address(original_dst);
        let carrying = options
            .carrier
            .carry(accepted, &destination, Frontend::Transparent, abort);
        if let Err(failed) = carrying.await {
            reset(&failed.stream);
        }
    }

    /// A probe that has come up to here has arrived, whichever server sent it.
    async fn answer_probe(mut self) {
        // So few bytes never wait.
        if let Err(error) = self.accepted.stream.write_all(ARRIVED).await {
            tracing::debug!(%error, "a probe has gone before its answer");
        }
    }

    fn original_dst(&self) -> Option<OriginalDst> {
        let Accepted { stream, peer, .. } = &self.accepted;
        let found = self.options.original_dsts.of(stream);
        if !matches!(found, Ok(Some(_))) {
            self.options.without_original_dst.inc();
            reset(stream);
        }
        match found {
            Ok(Some(original_dst)) => return Some(original_dst),
            Ok(None) => {
                tracing::debug!(%peer, "closed a client that was not redirected");
            }
            Err(error) => {
                tracing::warn!(%peer, %error, "cannot read an original destination");
            }
        }
        None
    }
}
