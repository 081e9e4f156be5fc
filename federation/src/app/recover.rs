//! `recover`: a federation of one from the last surviving disk.

use super::directory::Directory;
use crate::args::RecoverArgs;
use crate::consensus::open::Config;
use crate::consensus::recover::force_new_cluster;
use crate::machine::Machine;
use anyhow::{Context, bail};

/// The file that tells the next `run` to forget the servers that are gone.
pub(super) const FORGET: &str = "forget-other-servers";

/// Recovers.
///
/// # Errors
/// When nothing usable is left, or the server still runs.
pub async fn recover(args: RecoverArgs) -> anyhow::Result<()> {
    if !args.force_new_cluster {
        bail!("--force-new-cluster is needed: every other server of the federation is forgotten");
    }
    let directory = Directory::load(&args.dir)?;
    let me = &directory.identity;
    let config = Config::new(directory.storage(), me.server, me.federation);
    let report = tokio::task::spawn_blocking(move || force_new_cluster::<Machine>(&config)).await??;
    std::fs::write(args.dir.join(FORGET), b"").context("can not leave word for the next run")?;
    for damage in &report.damage {
        tracing::warn!(damage, "passed over");
    }
    tracing::info!(
        base = report.base,
        last = report.last,
        kept_in = %report.kept_in.display(),
        "recovered: start it with `run`, and never start another server of the old federation again"
    );
    Ok(())
}
