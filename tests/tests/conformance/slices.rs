//! The EndpointSlices of an import: row O3.

use super::cluster::{Cluster, Kind};
use super::objects::HELLO;
use super::stage::{Stage, addresses, pods};
use super::wait::{SLICES, SOON, within};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

pub(crate) const SERVICE: &str = "multicluster.kubernetes.io/service-name";
pub(crate) const SOURCE: &str = "multicluster.kubernetes.io/source-cluster";
const MANAGER: &str = "endpointslice.kubernetes.io/managed-by";

/// The slices of the import in a cluster.
pub(crate) async fn slices(cluster: &Cluster) -> Result<Vec<Value>> {
    cluster.list(Kind::EndpointSlice, &format!("{SERVICE}={HELLO}")).await
}

/// Waits until a cluster has a slice with as many ready endpoints, and with the labels that the API asks for. Gives the
/// id of the cluster that they are in.
pub(crate) async fn sliced(
    cluster: &Cluster,
    family: &str,
    endpoints: usize,
) -> Result<(String, Vec<Value>)> {
    let what = format!("{} has a slice with {endpoints} {family} endpoints", cluster.name);
    within(&what, SLICES, async || {
        let all = slices(cluster).await?;
        let slice = all.iter().find(|slice| slice["addressType"] == family);
        let slice = slice.with_context(|| format!("there are {} others", all.len()))?;
        let labels = &slice["metadata"]["labels"];
        let source = labels[SOURCE].as_str().filter(|s| !s.is_empty()).context("it names no cluster")?;
        let manager = labels[MANAGER].as_str().context("it names no manager")?;
        ensure!(manager != "endpointslice-controller.k8s.io", "it is Kubernetes' own");
        let ready: Vec<Value> = slice["endpoints"].as_array().into_iter().flatten().cloned().collect();
        ensure!(
            ready.len() == endpoints && ready.iter().all(|e| e["conditions"]["ready"] == true),
            "{}",
            slice["endpoints"]
        );
        Ok((source.to_owned(), ready))
    })
    .await
}

/// O3: every cluster has slices of each family of the Service, which say where their endpoints are, until it is no more
/// exported.
pub(crate) async fn o3_slices_are_labelled(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    let pod = pods(stage.east(), 1).await?.remove(0);
    stage.export().await?;
    let service = stage.east().get(Kind::Service, HELLO).await?;
    let families = service["spec"]["ipFamilies"].as_array().context("no families")?;
    let addresses = addresses(std::slice::from_ref(&pod));
    let mut sources = BTreeSet::new();
    for cluster in &stage.clusters {
        for family in families.iter().filter_map(Value::as_str) {
            let (source, ready) = sliced(cluster, family, 1).await?;
            let address = ready[0]["addresses"][0].as_str().context("no address")?;
            ensure!(addresses.contains(address), "{address} is not of {addresses:?}");
            sources.insert(source);
        }
    }
    ensure!(sources.len() == 1, "the one cluster that exports has several ids: {sources:?}");
    stage.east().delete(Kind::ServiceExport, HELLO).await?;
    for cluster in &stage.clusters {
        within("its slices are gone", SOON, async || {
            let left = slices(cluster).await?;
            ensure!(left.is_empty(), "there are {}", left.len());
            Ok(())
        })
        .await?;
    }
    Ok(())
}
