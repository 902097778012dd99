//! How many Events a server may write: each is a write to the cluster's database, and trouble comes
//! in thousands.

use std::time::{Duration, Instant};

/// A token bucket: so many at once, then one a period.
#[derive(Debug)]
pub(super) struct Budget {
    burst: u32,
    period: Duration,
    left: u32,
    /// Up to when the periods have been counted.
    counted: Instant,
}

impl Budget {
    pub(super) fn new(burst: u32, period: Duration, now: Instant) -> Self {
        Self {
            burst,
            period,
            left: burst,
            counted: now,
        }
    }

    /// Takes one, or tells how long it takes until there is one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self.left < self.burst && now >= self.counted + self.period {
            self.counted += self.period;
            self.left += 1;
        }
        if self.left == self.burst {
            self.counted = now;
        }
        if self.left == 0 {
            return Err((self.counted + self.period).saturating_duration_since(now));
        }
        self.left -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    fn taken(budget: &mut Budget, now: Instant) -> usize {
        std::iter::from_fn(|| budget.take(now).ok()).count()
    }

    #[test]
    fn a_burst_is_free_and_then_one_a_period() {
        let start = Instant::now();
        let mut budget = Budget::new(100, PERIOD, start);
        assert_eq!(taken(&mut budget, start), 100);
        assert_eq!(budget.take(start + PERIOD / 4), Err(PERIOD * 3 / 4));
        assert_eq!(taken(&mut budget, start + PERIOD), 1);
        let hour: usize = (2..=3600)
            .map(|n| taken(&mut budget, start + n * PERIOD))
            .sum();
        assert_eq!(hour, 3599);
    }

    #[test]
    fn a_quiet_time_earns_one_burst_and_no_more() {
        let start = Instant::now();
        let mut budget = Budget::new(3, PERIOD, start);
        assert_eq!(taken(&mut budget, start + 1000 * PERIOD), 3);
        assert_eq!(taken(&mut budget, start + 1002 * PERIOD), 2);
        assert_eq!(taken(&mut budget, start + 2000 * PERIOD), 3);
    }
}
