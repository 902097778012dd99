//! What the outcomes of probes say of a family: a plain state machine.

/// How many outcomes in a row change the judgement. One probe may be lost to a machine that does
/// much else.
const IN_A_ROW: u32 = 2;

/// The judgement over one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::app) struct Judgement {
    fails: bool,
    /// How many outcomes in a row contradict the judgement.
    doubts: u32,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Arrived,
    Lost,
    /// It says nothing: it could not be sent, say.
    Unknown,
}

/// What becomes of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Fails,
    Arrives,
}

impl Judgement {
    pub(super) fn judge(&mut self, outcome: Outcome) -> Option<Change> {
        let lost = match outcome {
            Outcome::Arrived => false,
            Outcome::Lost => true,
            Outcome::Unknown => return None,
        };
        if lost == self.fails {
            self.doubts = 0;
            return None;
        }
        self.doubts += 1;
        if self.doubts < IN_A_ROW {
            return None;
        }
        *self = Self {
            fails: lost,
            doubts: 0,
        };
        Some(if lost { Change::Fails } else { Change::Arrives })
    }

    /// Whether all is well, as far as one can tell.
    pub(super) fn is_sure(self) -> bool {
        self.doubts == 0 && !self.fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(judgement: &mut Judgement, outcomes: &[Outcome]) -> Vec<Option<Change>> {
        let judged = outcomes.iter().map(|outcome| judgement.judge(*outcome));
        judged.collect()
    }

    #[test]
    fn one_lost_probe_says_nothing_and_two_in_a_row_do() {
        use Outcome::{Arrived, Lost};
        let mut judgement = Judgement::default();
        let changes = judge(&mut judgement, &[Lost, Arrived, Lost, Arrived]);
        assert_eq!(changes, [None; 4]);
        let changes = judge(&mut judgement, &[Lost, Lost, Lost]);
        assert_eq!(changes, [None, Some(Change::Fails), None]);
    }

    #[test]
    fn it_arrives_again_after_two_in_a_row() {
        use Outcome::{Arrived, Lost};
        let mut judgement = Judgement::default();
        judge(&mut judgement, &[Lost, Lost]);
        let changes = judge(&mut judgement, &[Arrived, Lost, Arrived, Arrived, Arrived]);
        let arrives = Some(Change::Arrives);
        assert_eq!(changes, [None, None, None, arrives, None]);
        assert!(judgement.is_sure());
    }

    #[test]
    fn what_could_not_be_sent_changes_nothing() {
        use Outcome::{Arrived, Lost, Unknown};
        let mut judgement = Judgement::default();
        assert_eq!(judgement.judge(Unknown), None);
        assert!(judgement.is_sure());
        judge(&mut judgement, &[Arrived, Lost]);
        assert_eq!(judgement.judge(Unknown), None);
        assert!(!judgement.is_sure());
        assert_eq!(judgement.judge(Lost), Some(Change::Fails));
        assert_eq!(judge(&mut judgement, &[Unknown; 3]), [None; 3]);
    }
}
