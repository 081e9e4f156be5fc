//! What every spec begins with: a namespace in each cluster, a Service in the first one, a pod to ask from in each.

use super::cluster::{Cluster, Kind};
use super::objects::{self, HELLO, REQUEST};
use super::wait::{APART, SLICES, SOON, within};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

/// The clusters, in the namespace of one spec.
pub(crate) struct Stage {
    /// All of them; the first one has the Service.
    pub(crate) clusters: Vec<Cluster>,
}

impl Stage {
    /// In a new namespace of all clusters, with nothing in it.
    pub(crate) async fn open(clusters: &[Cluster], namespace: &str) -> Result<Self> {
        let mut opened = Vec::new();
        for cluster in clusters {
            opened.push(cluster.in_namespace(namespace).await?);
        }
        Ok(Stage { clusters: opened })
    }

    /// Makes objects in the first cluster and lets pods run in each that requests come from.
    pub(crate) async fn set(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            self.east().create(object).await?;
        }
        for cluster in &self.clusters {
            cluster.create(&objects::request()).await?;
        }
        for cluster in &self.clusters {
            within("the requesting pod runs", SLICES, async || {
                let pod = cluster.get(Kind::Pod, REQUEST).await?;
                ensure!(pod["status"]["phase"] == "Running", "{}", pod["status"]);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The usual beginning: one pod behind the Service.
    pub(crate) async fn hello(&self) -> Result<()> {
        self.set(&[objects::deployment(1), objects::service()]).await
    }

    pub(crate) fn east(&self) -> &Cluster {
        &self.clusters[0]
    }

    pub(crate) fn west(&self) -> &Cluster {
        &self.clusters[1]
    }

    /// Exports the Service of the first cluster.
    pub(crate) async fn export(&self) -> Result<()> {
        self.east().create(&objects::export()).await
    }

    /// Exports the Services of two clusters, that of the first one first.
    pub(crate) async fn export_both(&self) -> Result<()> {
        self.export_these(&objects::export(), &objects::export()).await
    }

    /// The same, by these exports.
    pub(crate) async fn export_these(&self, first: &Value, second: &Value) -> Result<()> {
        self.east().create(first).await?;
        tokio::time::sleep(APART).await;
        self.west().create(second).await
    }

    /// Waits until every cluster has the import, and is content with it.
    pub(crate) async fn imported(&self, what: &str, content: impl Fn(&Value) -> Result<()>) -> Result<()> {
        for cluster in &self.clusters {
            imported(cluster, what, &content).await?;
        }
        Ok(())
    }

    /// Waits until no cluster has the import.
    pub(crate) async fn gone(&self) -> Result<()> {
        for cluster in &self.clusters {
            within("the import is gone", SOON, async || absent(cluster, HELLO).await).await?;
        }
        Ok(())
    }

    /// Waits until a condition of the exports of both is so.
    pub(crate) async fn both(&self, condition: &str, status: &str, reason: &str) -> Result<()> {
        for cluster in [self.east(), self.west()] {
            condition_is(cluster, condition, status, reason).await?;
        }
        Ok(())
    }
}

/// Waits until a cluster has the import and is content with it.
pub(crate) async fn imported(
    cluster: &Cluster,
    what: &str,
    content: impl Fn(&Value) -> Result<()>,
) -> Result<Value> {
    within(&format!("the import of {} {what}", cluster.name), SOON, async || {
        let import = cluster.get(Kind::ServiceImport, HELLO).await?;
        content(&import).with_context(|| import["spec"].to_string())?;
        Ok(import)
    })
    .await
}

/// That there is no import of this name.
pub(crate) async fn absent(cluster: &Cluster, name: &str) -> Result<()> {
    let import = cluster.find(Kind::ServiceImport, name).await?;
    ensure!(import.is_none(), "there is one in {}: {import:?}", cluster.name);
    Ok(())
}

/// Waits until a condition of a cluster's export is so. The reason is one of several, or any where it is empty.
pub(crate) async fn condition_is(cluster: &Cluster, kind: &str, status: &str, reason: &str) -> Result<()> {
    let what = format!("{kind} of the export in {} is {status} for {reason:?}", cluster.name);
    within(&what, SOON, async || {
        let export = cluster.get(Kind::ServiceExport, HELLO).await?;
        let conditions = export["status"]["conditions"].as_array().context("it has no conditions")?;
        let found = conditions.iter().find(|c| c["type"] == kind).context("no such condition")?;
        let reasons = found["reason"].as_str().unwrap_or_default();
        let named = reason.is_empty() || reasons.split(',').any(|r| r == reason);
        ensure!(found["status"] == status && named && !reasons.is_empty(), "{found}");
        Ok(())
    })
    .await
}

/// The running, ready pods of the Service in a cluster: their first addresses, and all their addresses.
pub(crate) async fn pods(cluster: &Cluster, count: usize) -> Result<Vec<Value>> {
    let what = format!("{count} pods of {} are ready", cluster.name);
    within(&what, SLICES, async || {
        let pods = cluster.list(Kind::Pod, &format!("app={HELLO}")).await?;
        let ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        };
        ensure!(
            pods.len() == count && pods.iter().filter(ready).count() == count,
            "there are {}",
            pods.len()
        );
        Ok(pods)
    })
    .await
}

/// The first address of the only pod of the Service in a cluster.
pub(crate) async fn pod(cluster: &Cluster) -> Result<String> {
    let pods = pods(cluster, 1).await?;
    Ok(pods[0]["status"]["podIP"].as_str().context("it has no address")?.to_owned())
}

/// All addresses of pods.
pub(crate) fn addresses(pods: &[Value]) -> BTreeSet<String> {
    let ips = pods.iter().flat_map(|pod| pod["status"]["podIPs"].as_array().into_iter().flatten());
    ips.filter_map(|ip| ip["ip"].as_str().map(str::to_owned)).collect()
}
