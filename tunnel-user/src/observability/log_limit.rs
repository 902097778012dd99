//! The log rate limiter: how many lines one kind of event may write.
//!
//! Whoever can cause a log line (a stranger on the network, a client, a node, an agent) can cause a
//! million of them, and bury what matters or fill a disk. So every line at `info` and above passes
//! through here, whatever part of the program or library writes it: each kind (a place in the code)
//! has a number of lines at once and then so many a minute, for each node, server or user it is
//! about, and a larger one for all of these together. What is beyond is counted, and told of when it
//! begins, each minute, and when it is over.

mod layer;

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

pub(super) use self::layer::LogRateLimiter;
use super::{TokenBucket, TokenBuckets};

/// Lines of one kind about one subject: so many at once, then one a period.
const SUBJECT_BURST: u32 = 10;
const SUBJECT_PERIOD: Duration = Duration::from_secs(6);
/// Lines of one kind, whatever they are about.
const KIND_BURST: u32 = 300;
const KIND_PERIOD: Duration = Duration::from_millis(200);
/// How often what is left out is counted, and how long nothing may have been left out before it is over.
const COUNTED_EVERY: Duration = Duration::from_mins(1);

/// All kinds of lines.
#[derive(Debug)]
struct LogLimits<K> {
    kinds: HashMap<K, Kind>,
}

#[derive(Debug)]
struct Kind {
    all: TokenBucket,
    /// The empty text stands for lines that are about nobody in particular.
    subjects: TokenBuckets,
    leaving_out: Option<LeavingOut>,
}

/// Since when lines of a kind are left out, and how many.
#[derive(Debug)]
struct LeavingOut {
    /// The line that was left out first, for the report.
    line: Line,
    began: Instant,
    latest: Instant,
    reported: Instant,
    is_told: bool,
    since_report: u64,
    total: u64,
}

/// What a line is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    target: &'static str,
    message: String,
    subject: String,
}

/// What there is to say about lines that were left out.
#[derive(Debug, PartialEq, Eq)]
enum Report {
    Begins(Line),
    GoesOn {
        line: Line,
        left_out: u64,
    },
    Over {
        line: Line,
        left_out: u64,
        lasted: Duration,
    },
}

impl<K: Clone + Eq + Hash> LogLimits<K> {
    fn new() -> Self {
        Self {
            kinds: HashMap::new(),
        }
    }

    /// Whether a line may be written. `line` is asked for what it says only where that matters.
    fn pass(&mut self, kind: K, subject: &str, line: impl FnOnce() -> Line, now: Instant) -> bool {
        let kind = self.kinds.entry(kind).or_insert_with(|| Kind::new(now));
        kind.pass(subject, line, now)
    }

    /// What has to be said by now.
    fn report(&mut self, now: Instant) -> Vec<Report> {
        let kinds = self.kinds.values_mut();
        kinds.filter_map(|kind| kind.report(now)).collect()
    }

    /// Whether no line is left out at present.
    fn is_quiet(&self) -> bool {
        let mut kinds = self.kinds.values();
        kinds.all(|kind| kind.leaving_out.is_none())
    }
}

impl Kind {
    fn new(now: Instant) -> Self {
        Self {
            all: TokenBucket::new(KIND_BURST, KIND_PERIOD, now),
            subjects: TokenBuckets::new(SUBJECT_BURST, SUBJECT_PERIOD),
            leaving_out: None,
        }
    }

    fn pass(&mut self, subject: &str, line: impl FnOnce() -> Line, now: Instant) -> bool {
        let passes = self.subjects.take(subject, now) && self.all.take(now).is_ok();
        if !passes {
            let leaving_out = self
                .leaving_out
                .get_or_insert_with(|| LeavingOut::new(line(), now));
            leaving_out.latest = now;
            leaving_out.since_report += 1;
            leaving_out.total += 1;
        }
        passes
    }

    fn report(&mut self, now: Instant) -> Option<Report> {
        let leaving_out = self.leaving_out.as_mut()?;
        let line = leaving_out.line.clone();
        if !leaving_out.is_told {
            leaving_out.is_told = true;
            return Some(Report::Begins(line));
        }
        if now.saturating_duration_since(leaving_out.latest) >= COUNTED_EVERY {
            let over = Report::Over {
                line,
                left_out: leaving_out.total,
                lasted: leaving_out
                    .latest
                    .saturating_duration_since(leaving_out.began),
            };
            self.leaving_out = None;
            return Some(over);
        }
        if now.saturating_duration_since(leaving_out.reported) < COUNTED_EVERY {
            return None;
        }
        leaving_out.reported = now;
        let left_out = std::mem::take(&mut leaving_out.since_report);
        (left_out > 0).then_some(Report::GoesOn { line, left_out })
    }
}

impl LeavingOut {
    fn new(line: Line, now: Instant) -> Self {
        Self {
            line,
            began: now,
            latest: now,
            reported: now,
            is_told: false,
            since_report: 0,
            total: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn line() -> Line {
        Line {
            message: "refused".into(),
            ..Line::default()
        }
    }

    /// How many of so many lines about a subject pass.
    fn passed(limits: &mut LogLimits<u8>, subject: &str, count: u32, now: Instant) -> u32 {
        let passes = (0..count).filter(|_| limits.pass(1, subject, line, now));
        u32::try_from(passes.count()).unwrap()
    }

    #[test]
    fn a_flood_is_a_few_lines_then_a_line_at_its_start_one_a_minute_and_one_at_its_end() {
        let start = Instant::now();
        let mut limits = LogLimits::new();
        assert_eq!(passed(&mut limits, "", 1000, start), SUBJECT_BURST);
        assert_eq!(limits.report(start), [Report::Begins(line())]);
        let mut reports = Vec::new();
        let mut written = 0;
        for second in 1..=600 {
            let now = start + second * SECOND;
            if second <= 300 {
                written += passed(&mut limits, "", 1000, now);
            }
            reports.extend(limits.report(now));
        }
        assert_eq!(written, 50, "one in six seconds");
        let (over, counted) = reports.split_last().unwrap();
        assert_eq!(counted.len(), 5, "{reports:?}");
        assert!(matches!(counted[0], Report::GoesOn { left_out, .. } if left_out > 59_000));
        let left_out = 301_000 - 50 - u64::from(SUBJECT_BURST);
        let lasted = 300 * SECOND;
        let line = line();
        assert_eq!(
            *over,
            Report::Over {
                line,
                left_out,
                lasted
            }
        );
        assert!(limits.is_quiet());
    }

    #[test]
    fn one_noisy_node_silences_no_other() {
        let start = Instant::now();
        let mut limits = LogLimits::new();
        assert_eq!(passed(&mut limits, "edge-1", 1000, start), SUBJECT_BURST);
        assert_eq!(passed(&mut limits, "edge-2", 1, start), 1);
        assert!(limits.pass(2, "edge-1", line, start), "another kind");
    }

    #[test]
    fn a_crowd_is_bounded_too() {
        let start = Instant::now();
        let mut limits = LogLimits::new();
        let crowd = (0..10_000).map(|n| passed(&mut limits, &format!("edge-{n}"), 1, start));
        assert_eq!(crowd.sum::<u32>(), KIND_BURST);
        let later = start + 10 * SECOND;
        assert_eq!(passed(&mut limits, "other", 1, later), 1);
    }

    #[test]
    fn a_few_lines_are_no_flood() {
        let start = Instant::now();
        let mut limits = LogLimits::new();
        for n in 0..100 {
            assert_eq!(passed(&mut limits, "", 1, start + n * SUBJECT_PERIOD), 1);
        }
        assert_eq!(limits.report(start), []);
        assert!(limits.is_quiet());
    }
}
