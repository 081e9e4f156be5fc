//! Passive ejection: a place that failed is left alone for a while, 1 s at first and twice as long each time, 30 s at
//! most. Then one connection tries it; the others go on as if it were still ejected until that one knows.
//!
//! Lock-free: two numbers an entry. Entries are kept by the configuration, keyed (address, cluster, service, port).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

const FIRST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 30_000;
/// How long a trial may take before another connection may try.
const TRIAL_MS: u64 = 5_000;

/// Milliseconds of a monotonic clock, from 1.
pub(crate) fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_millis();
    u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1)
}

/// How a place stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nothing is held against it.
    Healthy,
    /// It failed, and it is time to try again.
    HalfOpen,
    /// It failed a short time ago.
    Ejected,
}

/// What is remembered of one place.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: AtomicU32,
    /// Ejected until then; 0 = healthy.
    until: AtomicU64,
}

impl Health {
    /// How it stands at a time.
    pub(crate) fn standing(&self, now: u64) -> Standing {
        match self.until.load(Ordering::Relaxed) {
            0 => Standing::Healthy,
            until if now < until => Standing::Ejected,
            _ => Standing::HalfOpen,
        }
    }

    /// Claims the trial of a half-open place; false when another connection has it.
    pub(crate) fn claim_trial(&self, now: u64) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0
            && now >= until
            && self
                .until
                .compare_exchange(until, now + TRIAL_MS, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// It failed: true when this ejects a place that was healthy.
    pub(crate) fn failed(&self, now: u64) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(16);
        let pause = (FIRST_MS << failures).min(LONGEST_MS);
        self.until.swap(now + pause, Ordering::Relaxed) == 0
    }

    /// It served.
    pub(crate) fn served(&self) {
        // Almost always healthy already: no write to a line that every connection shares.
        if self.until.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// Its failures in a row, and for how many more milliseconds it is ejected.
    pub(crate) fn shown(&self, now: u64) -> (u32, u64) {
        (self.failures.load(Ordering::Relaxed), self.until.load(Ordering::Relaxed).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejection_doubles_and_one_trial_at_a_time_ends_it() {
        let health = Health::default();
        assert_eq!(health.standing(1), Standing::Healthy);
        assert!(health.failed(1_000));
        assert_eq!((health.standing(1_999), health.standing(2_000)), (Standing::Ejected, Standing::HalfOpen));
        assert!(!health.claim_trial(1_999));
        assert!(health.claim_trial(2_000));
        assert!(!health.claim_trial(2_000), "the trial is taken");
        assert_eq!(health.standing(2_001), Standing::Ejected);
        assert!(!health.failed(2_100));
        assert_eq!(health.shown(2_100), (2, 2_000));
        assert!(health.claim_trial(4_100));
        health.served();
        assert_eq!((health.standing(4_101), health.shown(4_101)), (Standing::Healthy, (0, 0)));
    }

    #[test]
    fn the_pause_has_a_ceiling() {
        let health = Health::default();
        for _ in 0..100 {
            health.failed(0);
        }
        assert_eq!(health.shown(0).1, LONGEST_MS);
    }
}
