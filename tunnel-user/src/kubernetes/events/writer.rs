//! Writes notices to the API server, one after another.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{EventRecord, Pending};
use crate::{kubernetes::api_error::describe, observability::TokenBucket};

/// Shown by `kubectl describe` as where an Event is from.
const CONTROLLER: &str = "culvert";
/// So many Events at once, and then one a period.
const BURST: u32 = 100;
const PERIOD: Duration = Duration::from_secs(1);
/// An API server that takes longer is away.
const PATIENCE: Duration = Duration::from_secs(10);
/// A notice that comes again within this time raises the count of its Event.
const MERGED: Duration = Duration::from_mins(6);
/// The longest note that the API server takes.
const LONGEST_NOTE: usize = 1024;

/// Writes notices as Events.
pub struct EventWriter {
    client: kube::Client,
    reporter: Reporter,
    notice_rx: mpsc::Receiver<EventRecord>,
    shared: Arc<Pending>,
    /// Whether the last one could not be written, so that it is said once.
    failing: bool,
    /// A recorder merges what has the same object and reason, and keeps the first note. So each
    /// note has a recorder of its own: another bad value makes another Event.
    recorders: HashMap<String, (Recorder, Instant)>,
}

impl EventWriter {
    pub(super) fn new(
        client: kube::Client,
        instance: &str,
        notice_rx: mpsc::Receiver<EventRecord>,
        shared: Arc<Pending>,
    ) -> Self {
        let reporter = Reporter {
            controller: CONTROLLER.to_owned(),
            instance: Some(instance.chars().take(128).collect()),
        };
        Self {
            client,
            reporter,
            notice_rx,
            shared,
            failing: false,
            recorders: HashMap::new(),
        }
    }

    /// Writes until `shutdown`. What is in hand then is lost.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut budget = TokenBucket::new(BURST, PERIOD, Instant::now().into_std());
        while let Some(Some(notice)) = shutdown.run_until_cancelled(self.notice_rx.recv()).await {
            // What comes meanwhile waits, up to the channel's length; the rest is lost.
            while let Err(wait) = budget.take(Instant::now().into_std()) {
                if shutdown.run_until_cancelled(sleep(wait)).await.is_none() {
                    break;
                }
            }
            let written = shutdown.run_until_cancelled(self.write(notice)).await;
            if written != Some(true) {
                self.shared.lose();
            }
        }
    }

    async fn write(&mut self, notice: EventRecord) -> bool {
        let recorder = self.recorder(&notice.note, Instant::now());
        let event = Event {
            type_: EventType::Warning,
            reason: notice.reason.to_owned(),
            note: Some(cut(notice.note)),
            action: notice.action.to_owned(),
            secondary: None,
        };
        let written = timeout(PATIENCE, recorder.publish(&event, &notice.about)).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(describe(&error)),
            Err(_elapsed) => Some("the API server does not answer in time".to_owned()),
        };
        let failing = std::mem::replace(&mut self.failing, error.is_some());
        let Some(error) = error else { return true };
        let about = notice.about.name.as_deref().unwrap_or_default();
        let reason = notice.reason;
        if failing {
            debug!(about, reason, error, "cannot write an Event either");
        } else {
            warn!(about, reason, error, "cannot write Events");
        }
        false
    }

    fn recorder(&mut self, note: &str, now: Instant) -> Recorder {
        self.recorders
            .retain(|_, (_, used)| now.saturating_duration_since(*used) < MERGED);
        let make = || {
            (
                Recorder::new(self.client.clone(), self.reporter.clone()),
                now,
            )
        };
        let (recorder, used) = self.recorders.entry(note.to_owned()).or_insert_with(make);
        *used = now;
        recorder.clone()
    }
}

fn cut(mut note: String) -> String {
    note.truncate(note.floor_char_boundary(LONGEST_NOTE));
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_two_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        let long = format!("{}ü and more", "x".repeat(LONGEST_NOTE - 1));
        assert_eq!(cut(long), "x".repeat(LONGEST_NOTE - 1));
    }
}
