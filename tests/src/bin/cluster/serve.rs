//! The process that owns a cluster.

use std::time::Duration;

use anyhow::Result;
use culvert_tests::cluster::{Cluster, Directory};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// How soon it is noticed that a program has ended, or the process that the cluster is for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(crate) fn run(directory: &Directory, until: Option<u32>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // From the first moment: a signal while it comes up must end in its removal as well.
        let mut signals = Signals::new()?;
        let made = directory.clone();
        let coming_up = tokio::task::spawn_blocking(move || Cluster::bring_up(&made));
        let cluster = coming_up.await??;
        keep(&cluster, &mut signals, until).await;
        cluster.remove()
    })
}

async fn keep(cluster: &Cluster, signals: &mut Signals, until: Option<u32>) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = signals.recv() => return,
            _ = tick.tick() => {
                cluster.reap();
                if until.is_some_and(|pid| !culvert_tests::process::exists(pid)) {
                    return;
                }
            }
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
