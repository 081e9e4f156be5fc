//! Who answers: rows O10 to O13.

use super::cluster::{Cluster, Kind};
use super::names::name;
use super::objects::{self, HELLO, PORT};
use super::stage::{Stage, pod};
use super::wait::in_a_row;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// How often in a row the right pod has to answer.
const TIMES: u32 = 10;
/// The other cluster's port.
const OTHER: u16 = 4242;

/// One request over TCP. Nothing is sent: the server answers whoever connects, and would lose its answer where it has ended
/// before it took the question.
pub(crate) fn request(name: &str, port: u16) -> String {
    format!("nc -w 2 {name} {port} </dev/null")
}

/// One request over TCP to the clusterset name.
pub(crate) async fn ask(cluster: &Cluster, port: u16) -> Result<String> {
    cluster.shell(&request(&name(cluster, "clusterset.local"), port)).await
}

/// Waits until only this pod answers, in every cluster.
pub(crate) async fn answers(stage: &Stage, port: u16, pod: &str) -> Result<()> {
    for cluster in &stage.clusters {
        answers_in(cluster, port, pod).await?;
    }
    Ok(())
}

/// Waits until only this pod answers, in a cluster.
pub(crate) async fn answers_in(cluster: &Cluster, port: u16, pod: &str) -> Result<()> {
    in_a_row(&format!("{pod} answers at {port} in {}", cluster.name), TIMES, async || {
        let said = ask(cluster, port).await?;
        ensure!(said.trim() == format!("pod ip {pod}"), "{said:?} was said");
        Ok(())
    })
    .await
}

/// O10: an exported Service is reached by its name from everywhere.
pub(crate) async fn o10_exported_is_reached(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    let pod = pod(stage.east()).await?;
    stage.export().await?;
    answers(stage, PORT, &pod).await
}

/// O11: of two clusters that have the Service only the one that exports it answers.
pub(crate) async fn o11_only_the_exporter_answers(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.west().create(&objects::deployment(1)).await?;
    stage.west().create(&objects::service()).await?;
    let (exporter, other) = (pod(stage.east()).await?, pod(stage.west()).await?);
    ensure!(exporter != other, "both pods are {exporter}");
    stage.export().await?;
    answers(stage, PORT, &exporter).await
}

/// A workload that listens at another port, behind a Service with these ports.
async fn other_port(stage: &Stage, ports: Value) -> Result<(String, String)> {
    stage.hello().await?;
    let mut deployment = objects::deployment(1);
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array_mut();
    for container in containers.context("no containers")? {
        let listen = container["args"][2].as_str().context("no arguments")?;
        container["args"][2] = json!(listen.replace(":42,", &format!(":{OTHER},")));
    }
    stage.west().create(&deployment).await?;
    stage.west().create(&objects::service_with(json!({ "ports": ports }))).await?;
    let pods = (pod(stage.east()).await?, pod(stage.west()).await?);
    stage.export_both().await?;
    Ok(pods)
}

/// O12: where two clusters' ports have one name and different numbers, connections to the older number get to the
/// cluster that has it.
pub(crate) async fn o12_a_port_of_the_same_name_goes_to_its_cluster(stage: &Stage) -> Result<()> {
    let (first, _) = other_port(stage, json!([{"name": "tcp", "protocol": "TCP", "port": OTHER}])).await?;
    stage.both("Conflict", "True", "PortConflict").await?;
    answers(stage, PORT, &first).await?;
    for cluster in &stage.clusters {
        let import = cluster.get(Kind::ServiceImport, HELLO).await?;
        let offered = import["spec"]["ports"].as_array().context("no ports")?;
        ensure!(offered.iter().all(|p| p["port"] != OTHER), "the younger number is offered: {offered:?}");
    }
    Ok(())
}

/// O13: where two clusters have different ports, connections to each get to the cluster that has it.
pub(crate) async fn o13_each_port_goes_to_its_cluster(stage: &Stage) -> Result<()> {
    let ports = json!([{"name": "tcp-other", "protocol": "TCP", "port": OTHER}]);
    let (first, second) = other_port(stage, ports).await?;
    stage.both("Conflict", "True", "PortConflict").await?;
    answers(stage, PORT, &first).await?;
    answers(stage, OTHER, &second).await
}
