//! How much processor time processes have used, as the kernel counts it.

use anyhow::{Context, Result};
use std::time::Duration;

/// The kernel's unit of processor time in /proc: USER_HZ, which is 100 on every architecture that Linux has it on.
const TICK: Duration = Duration::from_millis(10);

/// The processor time of a process, in user and kernel mode and of threads that ended.
///
/// # Errors
/// When it is gone.
pub(crate) fn cpu(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{path}: the process is gone"))?;
    ticks(&text).map(|ticks| TICK * ticks).with_context(|| format!("{path} is not what it should be"))
}

/// Fields 14 and 15, counted after the name, which may itself hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 200 0 0 31 11 500 600 20 0 4 0 5 1000 200";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_measured() {
        cpu(std::process::id()).unwrap();
    }
}
