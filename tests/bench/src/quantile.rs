//! Quantiles of a set of measured durations, exactly: every sample is kept.

use std::time::Duration;

/// Measured durations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// One more.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Both together.
    pub(crate) fn extend(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// The smallest sample that at least this share (0 to 1) of all does not exceed; none of none.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }

    /// In milliseconds, for a table.
    pub(crate) fn millis(&self, share: f64) -> String {
        self.quantile(share).map_or_else(|| "-".to_owned(), |d| format!("{:.2}", d.as_secs_f64() * 1000.0))
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        Samples(samples.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Samples = (1..=100).map(Duration::from_millis).collect();
        let at = |share| samples.quantile(share).unwrap().as_millis();
        assert_eq!([at(0.0), at(0.5), at(0.99), at(0.991), at(1.0)], [1, 50, 99, 100, 100]);
        assert_eq!(Samples::default().quantile(0.5), None);
    }
}
