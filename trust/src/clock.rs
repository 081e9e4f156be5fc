//! The wall clock, read in one place.

use sealane_core::time::Millis;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, by the wall clock. A clock set before 1970 reads as 1970, so that every certificate is "not yet valid".
#[must_use]
pub fn now() -> Millis {
    of(SystemTime::now())
}

/// An instant of the wall clock as milliseconds; before 1970 reads as 1970.
#[must_use]
pub fn of(time: SystemTime) -> Millis {
    let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Millis(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// A span in whole milliseconds, saturating.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
