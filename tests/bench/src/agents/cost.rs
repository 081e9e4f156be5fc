//! What the servers of a federation count, and what they use of the machine.

use crate::usage;
use anyhow::{Context, Result};
use sealane::local::federation::Server;
use sealane::local::{Federation, inspect};
use std::time::Duration;

/// Sums over all servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Items of views computed anew, one for each cluster and service.
    pub(crate) recomputed: u64,
    /// Deltas sent to watchers.
    pub(crate) deltas: u64,
    /// Their bytes.
    pub(crate) delta_bytes: u64,
    /// Bytes of messages that only tell how far a watcher is.
    pub(crate) progress_bytes: u64,
    /// Processor time.
    pub(crate) cpu: Duration,
}

impl Cost {
    /// Up to now.
    ///
    /// # Errors
    /// When a server does not answer.
    pub(crate) async fn now(federation: &Federation) -> Result<Self> {
        let mut cost =
            Cost { recomputed: 0, deltas: 0, delta_bytes: 0, progress_bytes: 0, cpu: Duration::ZERO };
        for server in &federation.servers {
            let process = server.process.as_ref().context("a server does not run")?;
            cost.cpu += usage::cpu(process.id())?;
            let metric = async |name: &str, labels: &[(&str, &str)]| {
                inspect::metric(server.metrics, &format!("sealane_federation_{name}_total"), labels).await
            };
            let (delta, synced) = (&[("message", "Delta")], &[("message", "Synced")]);
            cost.recomputed += metric("view_items_recomputed", &[]).await?;
            cost.deltas += metric("view_messages", delta).await?;
            cost.delta_bytes += metric("view_bytes", delta).await?;
            cost.progress_bytes += metric("view_bytes", synced).await?;
        }
        Ok(cost)
    }

    /// What was added since.
    pub(crate) fn since(&self, before: &Cost) -> Cost {
        Cost {
            recomputed: self.recomputed - before.recomputed,
            deltas: self.deltas - before.deltas,
            delta_bytes: self.delta_bytes - before.delta_bytes,
            progress_bytes: self.progress_bytes - before.progress_bytes,
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }
}

/// The resident memory of each server, in bytes.
///
/// # Errors
/// When one does not run.
pub(crate) fn resident(federation: &Federation) -> Result<Vec<u64>> {
    let of = |s: &Server| s.process.as_ref().context("a server does not run")?.resident();
    federation.servers.iter().map(of).collect()
}
