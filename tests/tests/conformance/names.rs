//! Names: rows O4 to O9.

use super::cluster::{Cluster, Kind};
use super::objects::{self, HELLO, PORT};
use super::slices::sliced;
use super::stage::{Stage, addresses, imported, pods};
use super::wait::in_a_row;
use anyhow::{Context, Result, ensure};
use sealane_tests::nslookup::{self, Service};
use serde_json::Value;
use std::collections::BTreeSet;

/// How often in a row an answer has to be right.
const TIMES: u32 = 3;

/// The name of the Service in a zone.
pub(crate) fn name(cluster: &Cluster, zone: &str) -> String {
    format!("{HELLO}.{}.svc.{zone}", cluster.namespace)
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Waits until a name has these addresses and no others.
async fn resolves(cluster: &Cluster, name: &str, addresses: &BTreeSet<String>) -> Result<()> {
    ensure!(!addresses.is_empty(), "nothing is expected of {name}");
    in_a_row(&format!("{name} is {addresses:?} in {}", cluster.name), TIMES, async || {
        let said = cluster.shell(&format!("nslookup {name}")).await?;
        let found = nslookup::addresses(&said);
        ensure!(found == *addresses, "it is {found:?}: {said}");
        Ok(())
    })
    .await
}

/// Waits until a name has SRV records that are as expected.
async fn serves(cluster: &Cluster, name: &str, expected: impl Fn(&[Service]) -> bool) -> Result<()> {
    in_a_row(&format!("{name} has its SRV records in {}", cluster.name), TIMES, async || {
        let said = cluster.shell(&format!("nslookup -type=SRV {name}")).await?;
        let found = nslookup::services(&said);
        ensure!(expected(&found), "they are {found:?}: {said}");
        Ok(())
    })
    .await
}

fn addressed(import: &Value) -> Result<()> {
    let (ips, families) = (texts(&import["spec"]["ips"]), texts(&import["spec"]["ipFamilies"]));
    ensure!(!ips.is_empty() && ips.len() == families.len(), "it has no address yet");
    Ok(())
}

/// O4: the clusterset name is the address of the import.
pub(crate) async fn o4_name_is_the_clusterset_address(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.export().await?;
    for cluster in &stage.clusters {
        let import = imported(cluster, "has an address", addressed).await?;
        resolves(cluster, &name(cluster, "clusterset.local"), &texts(&import["spec"]["ips"])).await?;
    }
    Ok(())
}

/// O5: the clusterset name has one SRV record: both ports have the same number.
pub(crate) async fn o5_name_has_one_srv_record(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.export().await?;
    for cluster in &stage.clusters {
        let name = name(cluster, "clusterset.local");
        let expected = [Service { port: PORT, target: name.clone() }];
        serves(cluster, &name, |found| found == expected).await?;
    }
    Ok(())
}

/// O6: the local name is the Service's own address still.
pub(crate) async fn o6_local_name_is_the_local_address(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.export().await?;
    let east = stage.east();
    let import = imported(east, "has an address", addressed).await?;
    let local = texts(&east.get(Kind::Service, HELLO).await?["spec"]["clusterIPs"]);
    ensure!(local.is_disjoint(&texts(&import["spec"]["ips"])), "both are {local:?}");
    // It is told apart from a name that the other zone has by now.
    resolves(east, &name(east, "clusterset.local"), &texts(&import["spec"]["ips"])).await?;
    resolves(east, &name(east, "cluster.local"), &local).await
}

/// O7: the clusterset name of a headless Service is the addresses of its ready pods.
pub(crate) async fn o7_headless_name_is_all_ready_pods(stage: &Stage) -> Result<()> {
    stage.set(&[objects::deployment(2), objects::headless()]).await?;
    let expected = addresses(&pods(stage.east(), 2).await?);
    stage.export().await?;
    for cluster in &stage.clusters {
        resolves(cluster, &name(cluster, "clusterset.local"), &expected).await?;
    }
    Ok(())
}

/// O8: each pod of a headless StatefulSet has a name below its cluster's, everywhere.
pub(crate) async fn o8_each_stateful_pod_has_a_name(stage: &Stage) -> Result<()> {
    stage.set(&[objects::stateful_set(2), objects::headless()]).await?;
    let pods = pods(stage.east(), 2).await?;
    stage.export().await?;
    for cluster in &stage.clusters {
        let (source, ready) = sliced(cluster, "IPv4", 2).await?;
        for pod in &pods {
            let host = pod["metadata"]["name"].as_str().context("a pod without a name")?;
            let named = ready.iter().find(|endpoint| endpoint["hostname"] == host);
            let named = named.with_context(|| format!("no endpoint is called {host}: {ready:?}"))?;
            ensure!(
                named["addresses"][0] == pod["status"]["podIP"],
                "{named} is not {}",
                pod["status"]["podIP"]
            );
            let below = format!("{host}.{source}.{}", name(cluster, "clusterset.local"));
            resolves(cluster, &below, &addresses(std::slice::from_ref(pod))).await?;
        }
    }
    Ok(())
}

/// O9: the clusterset name of a headless Service has SRV records for each endpoint, whose target begins with the pod's
/// name or with its address.
pub(crate) async fn o9_headless_has_an_srv_record_for_each_endpoint(stage: &Stage) -> Result<()> {
    stage.set(&[objects::stateful_set(2), objects::headless()]).await?;
    let pods = pods(stage.east(), 2).await?;
    let hosts: BTreeSet<String> =
        pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect();
    stage.export().await?;
    for cluster in &stage.clusters {
        let (source, _) = sliced(cluster, "IPv4", 2).await?;
        let name = name(cluster, "clusterset.local");
        let expected: Vec<Service> = hosts
            .iter()
            .map(|host| Service { port: PORT, target: format!("{host}.{source}.{name}") })
            .collect();
        serves(cluster, &name, |found| found == expected).await?;
    }
    stage.east().delete(Kind::StatefulSet, HELLO).await?;
    dashed(stage).await
}

/// Pods without a name of their own.
async fn dashed(stage: &Stage) -> Result<()> {
    super::wait::within("the named pods are gone", super::wait::SLICES, async || {
        let left = stage.east().list(Kind::Pod, &format!("app={HELLO}")).await?;
        ensure!(left.is_empty(), "{} are there", left.len());
        Ok(())
    })
    .await?;
    stage.east().create(&objects::deployment(2)).await?;
    let pods = pods(stage.east(), 2).await?;
    let dash = |ip: &String| ip.replace(['.', ':'], "-");
    let dashed: BTreeSet<String> = addresses(&pods).iter().map(dash).collect();
    for cluster in &stage.clusters {
        serves(cluster, &name(cluster, "clusterset.local"), |found| {
            let first = |s: &Service| s.target.split('.').next().unwrap_or_default().to_owned();
            let targets: BTreeSet<String> = found.iter().map(first).collect();
            targets == dashed && found.len() == dashed.len() && found.iter().all(|s| s.port == PORT)
        })
        .await?;
    }
    Ok(())
}
