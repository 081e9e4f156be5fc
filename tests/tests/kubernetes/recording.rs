//! Watches that run beside a test and write down every change of what agents write into a cluster.

use crate::history::{Change, KINDS};
use anyhow::{Context, Result, ensure};
use sealane_tests::clusters::Environment;
use serde_json::Value;
use std::process::Stdio;
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

/// Longer than any test.
const SECONDS: u32 = 3600;

/// A cluster's changes from the time on when this was made.
pub(crate) struct Recording {
    cluster: String,
    watches: Vec<(Child, NamedTempFile)>,
}

impl Recording {
    /// Begins to record.
    pub(crate) async fn begin(environment: &Environment, cluster: &str) -> Result<Self> {
        let mut watches = Vec::new();
        for kind in KINDS {
            let list = environment.kubectl(cluster, &["get", "--raw", &format!("/{kind}")]).await?;
            let list: Value = serde_json::from_str(&list)?;
            let version = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?;
            let watch = format!("/{kind}?watch=1&resourceVersion={version}&timeoutSeconds={SECONDS}");
            let file = NamedTempFile::new()?;
            let mut kubectl = Command::from(environment.command("kubectl")?);
            kubectl.args(["--context", cluster, "get", "--raw", &watch]);
            kubectl.stdin(Stdio::null()).stdout(file.reopen()?).kill_on_drop(true);
            watches.push((kubectl.spawn().context("can not watch")?, file));
        }
        Ok(Recording { cluster: cluster.to_owned(), watches })
    }

    /// What changed until now.
    pub(crate) fn changes(&mut self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for (kubectl, file) in &mut self.watches {
            let ended = kubectl.try_wait()?;
            ensure!(ended.is_none(), "a watch of {} ended: {ended:?}", self.cluster);
            let text = std::fs::read_to_string(file.path())?;
            // The last line may not be whole yet.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            for line in whole.lines() {
                changes.push(Change::read(line)?);
            }
        }
        Ok(changes)
    }
}
