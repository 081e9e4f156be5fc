//! Waiting: before another try, with full jitter, so that a thousand agents do not come back at once; and after a write.

use std::time::Duration;

/// The waits of one loop.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// From nothing up to `first`, doubled with each failure up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Backoff { first, most, failures: 0 }
    }

    /// The next wait.
    pub fn pause(&mut self) -> Duration {
        let bound = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rand::random_range(0.05..1.0))
    }

    /// The last try succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Writing to disk what changes all the time takes at most one part in so many of the time,
const SHARE: u32 = 20;
/// but what came meanwhile does not wait for longer than this.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long to rest after a write that took so long.
#[must_use]
pub fn rest_after(took: Duration) -> Duration {
    took.saturating_mul(SHARE - 1).min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let waits: Vec<Duration> = (0..50).map(|_| backoff.pause()).collect();
        assert!(waits[0] <= Duration::from_millis(100));
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(5)));
        assert!(waits[10..].iter().any(|w| *w > Duration::from_secs(1)));
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(100));
    }
}
