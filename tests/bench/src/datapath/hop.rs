//! The processes of a chain, and what the kernel says that they used.

use crate::usage;
use anyhow::Result;
use sealane::local::process::resident;
use std::time::Duration;

/// The hops of a chain, in the order in which a request meets them.
pub(crate) const HOPS: [&str; 3] = ["out", "gateway", "in"];

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
        self.0.iter().map(|pid| usage::cpu(*pid)).collect()
    }

    /// The resident memory of each, in bytes.
    pub(crate) fn resident(&self) -> Result<Vec<u64>> {
        self.0.iter().map(|pid| resident(*pid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_measured() {
        let own = Hops(vec![std::process::id()]);
        assert!(own.resident().unwrap()[0] > 100_000);
        assert_eq!(own.used().unwrap().len(), 1);
    }
}
