//! The processes of a chain, and what the kernel says that they used.

use anyhow::{Context, Result};
use std::time::Duration;

/// The hops of a chain, in the order in which a request meets them.
pub(crate) const HOPS: [&str; 3] = ["out", "gateway", "in"];

/// The unit of processor time in /proc: USER_HZ is 100 wherever Linux runs today.
const TICK_MS: u64 = 10;

/// The process ids of a chain's hops; none for the direct connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hops(Vec<u32>);

impl Hops {
    /// These processes, in the order of [`HOPS`].
    pub(crate) fn new(pids: [u32; 3]) -> Self {
        Hops(pids.into())
    }

    /// The processor time of each so far, of all its threads, in user space and in the kernel.
    pub(crate) fn used(&self) -> Result<Vec<Duration>> {
        self.0.iter().map(|pid| used(*pid)).collect()
    }

    /// The resident memory of each, in bytes.
    pub(crate) fn resident(&self) -> Result<Vec<u64>> {
        self.0.iter().map(|pid| resident(*pid)).collect()
    }
}

fn used(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    let ticks = ticks(&stat).context("/proc/PID/stat is not as expected")?;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

/// utime and stime, the 14th and 15th field; the 2nd is a name in parentheses that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "77 (a ) b (c) R 1 77 77 0 -1 4194304 100 0 0 0 250 50 7 8 20 0 1 0 9 0 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("77 (a)"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let own = Hops(vec![std::process::id()]);
        assert!(own.resident().unwrap()[0] > 100_000);
        assert_eq!(own.used().unwrap().len(), 1);
    }
}
