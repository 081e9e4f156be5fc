//! Clusters of different IP families: what the specs leave untested.

use super::cluster::{Cluster, Kind};
use super::objects::{self, HELLO};
use super::stage::{Stage, imported};
use anyhow::{Context, Result, ensure};
use sealane_tests::skip;
use serde_json::{Value, json};

/// Whether a cluster has both families, by the Service that was made in it.
async fn dual_stack(cluster: &Cluster) -> Result<bool> {
    let service = cluster.get(Kind::Service, HELLO).await?;
    Ok(service["spec"]["clusterIPs"].as_array().is_some_and(|ips| ips.len() == 2))
}

/// The condition Ready of an import.
fn ready(import: &Value) -> Result<&Value> {
    let conditions = import["status"]["conditions"].as_array().context("it has no conditions")?;
    conditions.iter().find(|c| c["type"] == "Ready").context("it has no condition Ready")
}

/// A family that only some exports have is told to all, until they agree; the oldest export's stay, and with them the
/// addresses that clients know.
pub(crate) async fn x10_a_family_of_some_is_a_conflict(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    if !dual_stack(stage.east()).await? {
        skip("x10_a_family_of_some_is_a_conflict", "the first cluster has one IP family");
        return Ok(());
    }
    let single = json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]});
    stage.west().create(&objects::service_with(single)).await?;
    stage.export().await?;
    let mut before = Vec::new();
    for cluster in &stage.clusters {
        before.push(
            imported(cluster, "is ready", |import| {
                let ready = ready(import)?;
                ensure!(ready["status"] == "True", "{ready}");
                Ok(())
            })
            .await?["spec"]
                .clone(),
        );
    }
    stage.west().create(&objects::export()).await?;
    stage.both("Conflict", "True", "IPFamilyConflict").await?;
    let single = json!({"spec": {"ipFamilyPolicy": "SingleStack"}});
    stage.east().patch(Kind::Service, HELLO, &single).await?;
    stage.both("Conflict", "False", "NoConflicts").await?;
    for (cluster, before) in stage.clusters.iter().zip(before) {
        let after = cluster.get(Kind::ServiceImport, HELLO).await?["spec"].clone();
        let same = |field: &str| after[field] == before[field];
        ensure!(same("ips") && same("ipFamilies"), "{}: {before} became {after}", cluster.name);
    }
    Ok(())
}

/// A cluster without the family of the Service says so, and another one has it all the same.
pub(crate) async fn x11_a_family_that_is_not_supported(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    if !dual_stack(stage.east()).await? || dual_stack_of_west(stage).await? {
        let reason = "the first cluster needs both IP families, and the second one IPv4 alone";
        skip("x11_a_family_that_is_not_supported", reason);
        return Ok(());
    }
    stage.east().delete(Kind::Service, HELLO).await?;
    let single = json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]});
    stage.east().create(&objects::service_with(single)).await?;
    stage.export().await?;
    imported(stage.east(), "is ready", |import| {
        let ready = ready(import)?;
        ensure!(ready["status"] == "True" && import["spec"]["ipFamilies"] == json!(["IPv6"]), "{ready}");
        Ok(())
    })
    .await?;
    imported(stage.west(), "is not supported", |import| {
        let ready = ready(import)?;
        ensure!(ready["status"] == "False" && ready["reason"] == "IPFamilyNotSupported", "{ready}");
        ensure!(import["spec"]["ips"].as_array().is_none_or(Vec::is_empty), "it has an address");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn dual_stack_of_west(stage: &Stage) -> Result<bool> {
    stage.west().create(&objects::service()).await?;
    let both = dual_stack(stage.west()).await?;
    stage.west().delete(Kind::Service, HELLO).await?;
    Ok(both)
}
