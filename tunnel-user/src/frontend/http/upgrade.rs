//! A connection that has changed its protocol: bytes both ways, those that were read ahead first, each direction until
//! its own end.

use std::io;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio_util::sync::CancellationToken;

use super::{connection::End, upstream::Lease, visit::Answering};

/// Both ends of a connection that is about to change.
pub(super) struct Upgrading {
    pub(super) on_client: OnUpgrade,
    pub(super) on_target: OnUpgrade,
    pub(super) lease: Lease,
    pub(super) answering: Answering,
}

impl Upgrading {
    /// Carries until both ends have closed, one is reset, or `abort` resets both.
    pub(super) async fn run(self, abort: &CancellationToken) -> End {
        let Self {
            on_client,
            on_target,
            lease,
            answering: _under_way,
        } = self;
        let Some(leased) = lease.release() else {
            return End::Reset;
        };
        // Whatever happens, the target hears of it; after an orderly end nothing is left to reset.
        let _reset = leased.abort.drop_guard();
        let carrying = async {
            let (client, target) = tokio::try_join!(on_client, on_target)?;
            carry(client, target).await?;
            // What the target has not been given yet still goes there.
            leased.ended.cancelled().await;
            Ok::<_, anyhow::Error>(())
        };
        tokio::select! {
            carried = carrying => match carried {
                Ok(()) => End::Over,
                Err(error) => {
                    tracing::debug!(%error, "a connection that had changed its protocol failed");
                    End::Reset
                }
            },
            () = abort.cancelled() => End::Drained,
        }
    }
}

async fn carry(client: Upgraded, target: Upgraded) -> io::Result<()> {
    let (mut client, mut target) = (TokioIo::new(client), TokioIo::new(target));
    copy_bidirectional(&mut client, &mut target).await?;
    Ok(())
}
