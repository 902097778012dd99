//! A token bucket: what may happen so often at once, and then once a period.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// So many at once, then one a period.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    burst: u32,
    period: Duration,
    left: u32,
    /// Up to when the periods have been counted.
    counted: Instant,
}

impl TokenBucket {
    pub(crate) fn new(burst: u32, period: Duration, now: Instant) -> Self {
        Self {
            burst,
            period,
            left: burst,
            counted: now,
        }
    }

    /// Whether nothing has been taken for so long that it is as good as new.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let periods = self.burst - self.left;
        now.saturating_duration_since(self.counted) >= self.period * periods
    }

    /// Takes one, or tells how long it takes until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
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

/// So many keys have a bucket of their own before those are forgotten whose bucket is full.
const KEYS: usize = 1024;

/// A bucket for each key, of which there may be any number.
#[derive(Debug)]
pub(crate) struct TokenBuckets {
    burst: u32,
    period: Duration,
    buckets: HashMap<String, TokenBucket>,
}

impl TokenBuckets {
    pub(crate) fn new(burst: u32, period: Duration) -> Self {
        Self {
            burst,
            period,
            buckets: HashMap::new(),
        }
    }

    /// Whether one may be taken for this key. Of a crowd of keys all may: only a bucket for all of
    /// them together bounds that.
    pub(crate) fn take(&mut self, key: &str, now: Instant) -> bool {
        if let Some(bucket) = self.buckets.get_mut(key) {
            return bucket.take(now).is_ok();
        }
        if self.buckets.len() >= KEYS {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.buckets.len() >= KEYS {
            return true;
        }
        let mut bucket = TokenBucket::new(self.burst, self.period, now);
        let passes = bucket.take(now).is_ok();
        self.buckets.insert(key.to_owned(), bucket);
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    fn taken(bucket: &mut TokenBucket, now: Instant) -> usize {
        std::iter::from_fn(|| bucket.take(now).ok()).count()
    }

    #[test]
    fn a_burst_is_free_and_then_one_a_period() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, PERIOD, start);
        assert_eq!(taken(&mut bucket, start), 100);
        assert_eq!(bucket.take(start + PERIOD / 4), Err(PERIOD * 3 / 4));
        assert_eq!(taken(&mut bucket, start + PERIOD), 1);
        let hour: usize = (2..=3600)
            .map(|n| taken(&mut bucket, start + n * PERIOD))
            .sum();
        assert_eq!(hour, 3599);
    }

    #[test]
    fn a_quiet_time_earns_one_burst_and_no_more() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(3, PERIOD, start);
        assert_eq!(taken(&mut bucket, start + 1000 * PERIOD), 3);
        assert_eq!(taken(&mut bucket, start + 1002 * PERIOD), 2);
        assert_eq!(taken(&mut bucket, start + 2000 * PERIOD), 3);
    }

    #[test]
    fn a_bucket_is_full_again_when_all_that_was_taken_has_come_back() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(3, PERIOD, start);
        assert!(bucket.is_full(start));
        assert_eq!(taken(&mut bucket, start), 3);
        assert!(!bucket.is_full(start + PERIOD * 2));
        assert!(bucket.is_full(start + PERIOD * 3));
    }

    #[test]
    fn each_key_has_its_own_bucket_and_those_that_are_silent_are_forgotten() {
        let start = Instant::now();
        let mut buckets = TokenBuckets::new(2, PERIOD);
        let passed = |buckets: &mut TokenBuckets, key: &str, now| {
            (0..10).filter(|_| buckets.take(key, now)).count()
        };
        assert_eq!(passed(&mut buckets, "noisy", start), 2);
        assert_eq!(passed(&mut buckets, "other", start), 2);
        for n in 0..3 * KEYS {
            buckets.take(&format!("k{n}"), start);
        }
        assert_eq!(buckets.buckets.len(), KEYS);
        assert_eq!(passed(&mut buckets, "new", start + 2 * PERIOD), 2);
        assert_eq!(buckets.buckets.len(), 1);
    }
}
