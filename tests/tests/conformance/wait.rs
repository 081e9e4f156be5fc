//! What a spec waits for, and for how long.

use anyhow::{Context, Result};
use sealane::local::wait::until;
use std::time::{Duration, Instant};

/// How long imports, their removal and conditions may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// For how long something is looked at that must not change.
pub(crate) const STILL: Duration = Duration::from_secs(5);
/// How long endpoint slices may take.
pub(crate) const SLICES: Duration = Duration::from_secs(60);
/// Between the exports of two clusters: the times of objects have no fractions of a second.
pub(crate) const APART: Duration = Duration::from_millis(1100);
/// How often it is looked at, at least.
const LOOKS: u32 = 5;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until a look is content, and gives what it saw.
pub(crate) async fn within<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let looked = until(what, limit, async || {
        let seen = look().await;
        if seen.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        seen.map(Some)
    });
    Ok(looked.await?.0)
}

/// Looks for a while, and is content every time.
pub(crate) async fn throughout(
    what: &str,
    time: Duration,
    mut look: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    let mut looks = 0;
    // On a slow machine it takes longer, but is not looked at less often.
    while start.elapsed() < time || looks < LOOKS {
        look().await.with_context(|| format!("not any more, after {:?}: {what}", start.elapsed()))?;
        looks += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Tries until it went well that often in a row.
pub(crate) async fn in_a_row(
    what: &str,
    times: u32,
    mut attempt: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let limit = SOON * times;
    let mut row = 0;
    let (row_of, what) = (&mut row, format!("{times} in a row: {what}"));
    within(&what, limit, async || {
        while *row_of < times {
            if let Err(error) = attempt().await {
                let before = std::mem::take(row_of);
                return Err(error.context(format!("after {before} in a row")));
            }
            *row_of += 1;
        }
        Ok(())
    })
    .await
}
