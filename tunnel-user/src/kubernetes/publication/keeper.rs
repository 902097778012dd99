//! Keeps one object as it should be, as long as this server leads.

use std::{collections::BTreeSet, time::Duration};

use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{debug, info};

use super::{
    Published,
    pace::Pace,
    problem::{Problem, ProblemReporter},
};
use crate::{
    kubernetes::api_error::{describe, is_status},
    wait::sleep_until_opt,
};

/// The longest that one answer of the API server may take.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// An object that the leader writes.
pub(super) trait Upkeep {
    /// What is written.
    type Write: Send;

    /// Resolves once something is heard on which the plan may depend.
    fn hear(&mut self) -> impl Future<Output = ()> + Send;

    /// What follows from all that has been heard.
    fn plan(&self) -> Plan<Self::Write>;

    /// Writes, and takes note of the object as the API server has it then.
    fn write(&mut self, write: Self::Write) -> impl Future<Output = kube::Result<()>> + Send;
}

/// What to do about an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan<W> {
    /// `None` where it is as it should be, or nobody knows how.
    pub(super) write: Option<W>,
    pub(super) problems: BTreeSet<Problem>,
    /// What it consists of, and its size.
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl<W> Default for Plan<W> {
    fn default() -> Self {
        Self {
            write: None,
            problems: BTreeSet::new(),
            entries: 0,
            bytes: 0,
        }
    }
}

impl<W> Plan<W> {
    /// Leaves the object as it is.
    pub(super) fn nothing_but(problems: impl IntoIterator<Item = Problem>) -> Self {
        Self {
            problems: problems.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// Never ends by itself.
pub(super) async fn keep<U: Upkeep>(
    mut upkeep: U,
    mut reporter: ProblemReporter,
    published_tx: &watch::Sender<Published>,
) {
    let mut pace = Pace::default();
    let mut failure = None;
    loop {
        let mut plan = upkeep.plan();
        pace.need(plan.write.is_some(), Instant::now());
        if plan.write.is_none() {
            failure = None;
        }
        plan.problems
            .extend(failure.clone().map(Problem::NotWritten));
        reporter.tell(plan.problems);
        publish(published_tx, |published| {
            published.entries = plan.entries;
            published.bytes = plan.bytes;
            published.troubles = reporter.texts();
        });
        tokio::select! {
            () = upkeep.hear() => {}
            () = sleep_until_opt(pace.due()) => {
                if let Some(write) = plan.write {
                    failure = attempt(&mut upkeep, write, &mut pace, published_tx).await;
                }
            }
        }
    }
}

/// What is to be told of its failure. Somebody else's write at the same time is nothing to tell of.
async fn attempt<U: Upkeep>(
    upkeep: &mut U,
    write: U::Write,
    pace: &mut Pace,
    published_tx: &watch::Sender<Published>,
) -> Option<String> {
    let (error, is_conflict) = match timeout(ANSWER_TIME, upkeep.write(write)).await {
        Ok(Ok(())) => {
            pace.wrote(Instant::now());
            publish(published_tx, |published| {
                published.written_at = Some(OffsetDateTime::now_utc());
                published.writes += 1;
            });
            info!(object = %published_tx.borrow().object, "written");
            return None;
        }
        Ok(Err(error)) => (describe(&error), is_status(&error, 409)),
        Err(_elapsed) => ("the API server does not answer".to_owned(), false),
    };
    let failures = pace.failed(Instant::now());
    debug!(object = %published_tx.borrow().object, error, failures, "could not be written");
    (failures > 1 || !is_conflict).then_some(error)
}

fn publish(published_tx: &watch::Sender<Published>, change: impl FnOnce(&mut Published)) {
    published_tx.send_if_modified(|published| {
        let before = published.clone();
        change(published);
        *published != before
    });
}
