//! What a benchmark measured several times: medians and how far the rest is from them.

/// Measured values, in order of size.
#[derive(Debug, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// The value that `percent` of all are below: 50 is the median, 0 the smallest, 100 the largest.
    ///
    /// Not a number if nothing was measured.
    pub fn percentile(&self, percent: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let index = (last * percent + 50) / 100;
        self.0.get(index).copied().unwrap_or(f64::NAN)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// Each divided by its partner in `others`, measured in the same round.
    pub fn ratios(these: &[f64], others: &[f64]) -> Self {
        these.iter().zip(others).map(|(a, b)| a / b).collect()
    }

    /// Each minus its partner in `others`, measured in the same round.
    pub fn differences(these: &[f64], others: &[f64]) -> Self {
        these.iter().zip(others).map(|(a, b)| a - b).collect()
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred_and_one_values_are_the_values() {
        let samples: Samples = (0..=100).rev().map(f64::from).collect();
        for percent in [0_u32, 1, 25, 50, 75, 99, 100] {
            let found = samples.percentile(percent as usize);
            assert!((found - f64::from(percent)).abs() < f64::EPSILON, "{found}");
        }
    }

    #[test]
    fn ratios_pair_what_was_measured_together() {
        let ratios = Samples::ratios(&[3.0, 20.0, 6.0], &[1.0, 10.0, 2.0]);
        assert!((ratios.median() - 3.0).abs() < f64::EPSILON);
        assert!((ratios.percentile(0) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn nothing_measured_is_no_number() {
        assert!(Samples::from_iter([]).median().is_nan());
    }
}
