//! The limiter as a layer of `tracing`, and the thread that tells what was left out.
//!
//! There is such a thread only while lines are left out: an idle agent has nothing that ticks.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
    warn,
};
use tracing_subscriber::layer::{Context, Layer};

use super::{Line, LogLimits, Report};
use crate::model::{printable, printable_up_to};

/// The target of what is told of lines that were left out.
const REPORTS: &str = "tunnel_user::log_limit";

/// Fields that say what a line is about; the first one that is there counts.
const SUBJECTS: [&str; 4] = ["node", "requester", "server", "about"];
/// The longest text that tells subjects apart: that of a node's name.
const LONGEST_SUBJECT: usize = 253;
/// How soon is told that lines are left out.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Leaves out what is too much.
pub(in super::super) struct LogRateLimiter {
    shared: Arc<Mutex<Shared>>,
    /// Whose lines all pass: somebody asked for each of them.
    exempt: &'static [&'static str],
}

struct Shared {
    limits: LogLimits<Identifier>,
    /// Whether there is a thread that reports.
    is_reporting: bool,
}

/// What an event says, as far as it matters here.
#[derive(Default)]
struct Said {
    message: String,
    /// The place of the field in [`SUBJECTS`], and its value.
    subject: Option<(usize, String)>,
}

impl LogRateLimiter {
    pub(in super::super) fn new(exempt: &'static [&'static str]) -> Self {
        let shared = Shared {
            limits: LogLimits::new(),
            is_reporting: false,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            exempt,
        }
    }

    fn is_limited(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        *metadata.level() <= Level::INFO
            && metadata.target() != REPORTS
            && !self.exempt.contains(&metadata.target())
    }
}

impl<S: Subscriber> Layer<S> for LogRateLimiter {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if !self.is_limited(event) {
            return true;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let metadata = event.metadata();
        let Said { message, subject } = said;
        let subject = subject.map(|(_, subject)| subject).unwrap_or_default();
        let mut shared = lock(&self.shared);
        let line = || Line {
            target: metadata.target(),
            message,
            subject: subject.clone(),
        };
        let passes = shared
            .limits
            .pass(metadata.callsite(), &subject, line, Instant::now());
        if !passes && !shared.is_reporting {
            let limiter = Arc::clone(&self.shared);
            let reporter = thread::Builder::new().name("log-reports".to_owned());
            let started = reporter.spawn(move || report_until_quiet(&limiter));
            shared.is_reporting = started.is_ok();
        }
        passes
    }
}

fn report_until_quiet(shared: &Mutex<Shared>) {
    loop {
        let mut locked = lock(shared);
        let reports = locked.limits.report(Instant::now());
        let is_over = locked.limits.is_quiet();
        locked.is_reporting = !is_over;
        drop(locked);
        reports.into_iter().for_each(tell);
        if is_over {
            return;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn tell(report: Report) {
    match report {
        Report::Begins(Line {
            target,
            message,
            subject,
        }) => warn!(
            target: REPORTS, of = target, like = message, about = subject,
            "too many lines of this kind: they are counted from here on",
        ),
        Report::GoesOn { line, left_out } => warn!(
            target: REPORTS, of = line.target, like = line.message, left_out,
            "lines of this kind are still left out",
        ),
        Report::Over {
            line,
            left_out,
            lasted,
        } => warn!(
            target: REPORTS, of = line.target, like = line.message, left_out, ?lasted,
            "no line of this kind is left out any more",
        ),
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Counts at worst one line too many or too few, whatever panicked meanwhile.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Said {
    fn hear(&mut self, field: &Field, text: impl FnOnce() -> String) {
        if field.name() == "message" {
            self.message = printable(&text());
        } else if let Some(place) = SUBJECTS.iter().position(|name| *name == field.name())
            && self
                .subject
                .as_ref()
                .is_none_or(|(known, _)| place < *known)
        {
            self.subject = Some((place, printable_up_to(&text(), LONGEST_SUBJECT)));
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.hear(field, || format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.hear(field, || value.to_owned());
    }
}
