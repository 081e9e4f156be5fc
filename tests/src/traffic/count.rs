//! What became of requests: counted by the client, printed, and read again from its log.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How lines about a failure begin.
const FAILED: &str = "FAILED";
/// How lines about a second attempt begin.
const AGAIN: &str = "AGAIN";

/// How many requests there were, from the first that succeeded on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// That were answered well.
    pub answered: u64,
    /// That were not.
    pub failed: u64,
    /// That were answered well at the second attempt only.
    pub again: u64,
    /// How long the slowest one took that was answered well.
    pub slowest_ms: u64,
}

impl Count {
    /// The last that a client's log says.
    ///
    /// # Errors
    /// When it says none.
    pub fn last_of(log: &str) -> Result<Self> {
        let line = log.lines().rev().find(|line| line.starts_with('{')).context("no count in the log")?;
        serde_json::from_str(line).with_context(|| format!("no count: {line}"))
    }
}

/// What a client's log says of failures and second attempts, a line each; kubelet's time goes before it where it was asked
/// for.
#[must_use]
pub fn failures(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(FAILED) || line.contains(AGAIN)).collect()
}

/// How a request was answered well.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Success {
    /// At the one attempt that it has.
    AtOnce,
    /// At the second; what became of the first.
    Again(String),
}

/// Counts.
#[derive(Debug, Default)]
pub(super) struct Counter(Count);

impl Counter {
    /// Takes in a request that ended; what is to be said of it, if anything.
    pub(super) fn add(&mut self, took: Duration, done: Result<Success>) -> Option<String> {
        let Counter(count) = self;
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match done {
            Ok(how) => {
                count.answered += 1;
                count.slowest_ms = count.slowest_ms.max(took);
                let Success::Again(lost) = how else { return None };
                count.again += 1;
                Some(format!("{AGAIN} after {took} ms: {lost}"))
            }
            Err(error) if count.answered == 0 => Some(format!("not yet: {error:#}")),
            Err(error) => {
                count.failed += 1;
                Some(format!("{FAILED} after {took} ms: {error:#}"))
            }
        }
    }

    /// How far it is, for the log.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(&self.0).expect("numbers are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_after_the_first_success_is_counted_and_read_again() {
        let ms = Duration::from_millis;
        let mut counter = Counter::default();
        let refused = || Err(anyhow::anyhow!("refused"));
        assert_eq!(counter.add(ms(1), refused()), Some("not yet: refused".to_owned()));
        let early = counter.line();
        let again = counter.add(ms(7), Ok(Success::Again("lost".to_owned()))).unwrap();
        assert_eq!(again, "AGAIN after 7 ms: lost");
        let failed = counter.add(ms(9), refused()).unwrap();
        assert_eq!(failed, "FAILED after 9 ms: refused");
        assert_eq!(counter.add(ms(3), Ok(Success::AtOnce)), None);
        let log = [early, again.clone(), failed.clone(), counter.line(), "FAI".to_owned()].join("\n");
        assert_eq!(Count::last_of(&log).unwrap(), Count { answered: 2, failed: 1, again: 1, slowest_ms: 7 });
        assert_eq!(failures(&log), [again, failed]);
        assert!(Count::last_of("not yet: refused").is_err());
    }
}
