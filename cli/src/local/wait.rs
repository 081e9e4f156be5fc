//! Waiting for something to become true: polled, with a deadline, and with the last reason when it does not.

use anyhow::{Result, anyhow};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
pub const INTERVAL: Duration = Duration::from_millis(20);

/// Polls until the condition gives a value; how long that took comes with it.
///
/// An error is a reason to go on, and is reported when the deadline has passed.
///
/// # Errors
/// When the deadline passes first; the message has what was waited for and the last reason.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    let mut last = None;
    loop {
        let left = limit.saturating_sub(start.elapsed());
        match tokio::time::timeout(left.max(INTERVAL), condition()).await {
            Ok(Ok(Some(value))) => return Ok((value, start.elapsed())),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = last.or_else(|| Some(anyhow!("the last look did not come back"))),
        }
        if start.elapsed() >= limit {
            let reason = last.map(|e| format!(": {e:#}")).unwrap_or_default();
            return Err(anyhow!("waited {limit:?} in vain until {what}{reason}"));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Polls a plain condition.
///
/// # Errors
/// As [`until`].
pub async fn until_true(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<Duration> {
    let looked = until(what, limit, async || Ok(condition().await?.then_some(())));
    Ok(looked.await?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_reason_is_told() {
        let limit = Duration::from_millis(50);
        let never = async || Err::<Option<()>, _>(anyhow!("waves"));
        let error = until("the sea is calm", limit, never).await.unwrap_err();
        assert_eq!(error.to_string(), "waited 50ms in vain until the sea is calm: waves");
    }

    #[tokio::test]
    async fn a_condition_that_holds_ends_the_wait() {
        let mut looks = 0;
        let took = until_true("it is so", Duration::from_secs(5), async || {
            looks += 1;
            Ok(looks == 3)
        });
        took.await.unwrap();
        assert_eq!(looks, 3);
    }
}
