//! What the specs leave untested.

use super::cluster::{Cluster, Kind};
use super::names::name;
use super::objects::{self, HELLO, PORT};
use super::stage::{Stage, absent, condition_is, imported, pod, pods};
use super::traffic::{answers, answers_in, ask, request};
use super::wait::{SLICES, SOON, STILL, in_a_row, throughout, within};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How many requests are many.
const MANY: u32 = 30;

/// `kubectl wait` sees exports and imports become ready, and an export that changed.
pub(crate) async fn x1_kubectl_waits_for_ready(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.export().await?;
    let wait = |object: &'static str| ["wait", "--for=condition=Ready", object, "--timeout=20s"];
    stage.east().kubectl(&wait("serviceexport/hello")).await?;
    for cluster in &stage.clusters {
        within("there is an import", SOON, async || cluster.get(Kind::ServiceImport, HELLO).await).await?;
        cluster.kubectl(&wait("serviceimport/hello")).await?;
    }
    let labels = json!({"spec": {"exportedLabels": {"tier": "gold"}}});
    stage.east().patch(Kind::ServiceExport, HELLO, &labels).await?;
    stage.east().kubectl(&wait("serviceexport/hello")).await?;
    within("the conditions are about the newest export", SOON, async || {
        let export = stage.east().get(Kind::ServiceExport, HELLO).await?;
        let generation = &export["metadata"]["generation"];
        let conditions = export["status"]["conditions"].as_array().context("no conditions")?;
        ensure!(*generation == 2, "its generation is {generation}");
        ensure!(conditions.iter().all(|c| c["observedGeneration"] == *generation), "{conditions:?}");
        Ok(())
    })
    .await
}

/// An export may come before its Service, and outlive it.
pub(crate) async fn x2_an_export_without_a_service(stage: &Stage) -> Result<()> {
    stage.set(&[objects::deployment(1), objects::export()]).await?;
    condition_is(stage.east(), "Valid", "False", "NoService").await?;
    throughout("no import", STILL, async || {
        for cluster in &stage.clusters {
            absent(cluster, HELLO).await?;
        }
        Ok(())
    })
    .await?;
    stage.east().create(&objects::service()).await?;
    condition_is(stage.east(), "Valid", "True", "Valid").await?;
    stage.imported("is there", |_| Ok(())).await?;
    stage.east().delete(Kind::Service, HELLO).await?;
    condition_is(stage.east(), "Valid", "False", "NoService").await?;
    stage.gone().await
}

/// A Service that becomes one that can not be exported, and one again.
pub(crate) async fn x3_a_service_of_another_type(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.export().await?;
    stage.imported("is there", |_| Ok(())).await?;
    let external = json!({"spec": {
        "type": "ExternalName", "externalName": "example.com", "clusterIP": null, "clusterIPs": null,
        "ipFamilies": null, "ipFamilyPolicy": null,
    }});
    stage.east().patch(Kind::Service, HELLO, &external).await?;
    condition_is(stage.east(), "Valid", "False", "InvalidServiceType").await?;
    condition_is(stage.east(), "Ready", "False", "").await?;
    stage.gone().await
}

/// A conflict that appears and disappears changes neither the import nor who answers.
pub(crate) async fn x4_a_conflict_changes_no_traffic(stage: &Stage) -> Result<()> {
    // One cluster has two families, and the other has one: that would be a conflict of its own.
    let service = objects::service_with(json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}));
    stage.set(&[objects::deployment(1), service.clone()]).await?;
    stage.west().create(&objects::deployment(1)).await?;
    stage.west().create(&service).await?;
    let (first, second) = (pod(stage.east()).await?, pod(stage.west()).await?);
    stage.export_both().await?;
    stage.both("Conflict", "False", "NoConflicts").await?;
    answers_in(stage.east(), PORT, &first).await?;
    answers_in(stage.west(), PORT, &second).await?;
    let before = stage.west().get(Kind::ServiceImport, HELLO).await?["spec"].clone();
    let other = json!({"spec": {"sessionAffinity": "None", "sessionAffinityConfig": null}});
    for (patch, status, reason) in
        [(other, "True", "SessionAffinityConflict"), (affine(), "False", "NoConflicts")]
    {
        let turn = async {
            stage.west().patch(Kind::Service, HELLO, &patch).await?;
            stage.both("Conflict", status, reason).await
        };
        let (answered, turned) = tokio::join!(who(stage.west(), MANY), turn);
        turned?;
        ensure!(
            answered? == BTreeSet::from([second.clone()]),
            "others answered while Conflict became {status}"
        );
        let after = stage.west().get(Kind::ServiceImport, HELLO).await?["spec"].clone();
        ensure!(after == before, "the import changed with Conflict {status}: {after}");
    }
    Ok(())
}

/// What makes clients stay with one pod.
fn affine() -> Value {
    let spec = &objects::service()["spec"];
    let fields = ["sessionAffinity", "sessionAffinityConfig"].map(|f| (f.to_owned(), spec[f].clone()));
    json!({ "spec": serde_json::Map::from_iter(fields) })
}

/// Who answers that many requests, one after the other. None may be without an answer.
async fn who(cluster: &Cluster, requests: u32) -> Result<BTreeSet<String>> {
    let ask = request(&name(cluster, "clusterset.local"), PORT);
    let script = format!("for i in $(seq {requests}); do {ask} || echo; sleep 0.1; done");
    let said = cluster.shell_for(&script, SLICES).await?;
    let answers: Vec<&str> = said.lines().map(str::trim).filter_map(|l| l.strip_prefix("pod ip ")).collect();
    ensure!(answers.len() == requests as usize, "{} answers to {requests} requests: {said:?}", answers.len());
    Ok(answers.into_iter().map(str::to_owned).collect())
}

/// Client affinity takes effect: without it all pods answer a client, with it one.
pub(crate) async fn x5_client_affinity_takes_effect(stage: &Stage) -> Result<()> {
    let none = json!({"sessionAffinity": "None", "sessionAffinityConfig": null});
    stage.set(&[objects::deployment(2), objects::service_with(none)]).await?;
    pods(stage.east(), 2).await?;
    stage.export().await?;
    let west = stage.west();
    within("both pods answer", SLICES, async || {
        let answered = who(west, MANY).await?;
        ensure!(answered.len() == 2, "{answered:?}");
        Ok(())
    })
    .await?;
    stage.east().patch(Kind::Service, HELLO, &affine()).await?;
    within("one pod answers", SLICES, async || {
        let answered = who(west, MANY).await?;
        ensure!(answered.len() == 1, "{answered:?}");
        Ok(())
    })
    .await
}

/// With the internal traffic policy Local only a node's own pods are reached.
pub(crate) async fn x6_internal_traffic_policy_takes_effect(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    let pod = pod(stage.east()).await?;
    stage.export().await?;
    answers(stage, PORT, &pod).await?;
    let policy = |policy: &str| json!({"spec": {"internalTrafficPolicy": policy}});
    stage.east().patch(Kind::Service, HELLO, &policy("Local")).await?;
    in_a_row("the other cluster is not answered", 5, async || {
        let said = ask(stage.west(), PORT).await?;
        ensure!(!said.contains("pod ip"), "{said:?} was said");
        Ok(())
    })
    .await?;
    answers_in(stage.east(), PORT, &pod).await?;
    stage.east().patch(Kind::Service, HELLO, &policy("Cluster")).await?;
    answers_in(stage.west(), PORT, &pod).await
}

/// UDP goes the same way.
pub(crate) async fn x7_udp_is_answered(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    let pod = pod(stage.east()).await?;
    stage.export().await?;
    for cluster in &stage.clusters {
        let ask = format!("echo hi | nc -4 -u -w 1 {} {PORT}", name(cluster, "clusterset.local"));
        in_a_row(&format!("{pod} answers over UDP in {}", cluster.name), 3, async || {
            let said = cluster.shell(&ask).await?;
            ensure!(said.trim() == format!("pod ip {pod}"), "{said:?} was said");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A cluster's own pods answer while there are any, and the other cluster's as soon as there are none.
pub(crate) async fn x8_the_own_pods_come_first(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.west().create(&objects::deployment(1)).await?;
    stage.west().create(&objects::service()).await?;
    let (first, second) = (pod(stage.east()).await?, pod(stage.west()).await?);
    stage.export_both().await?;
    answers_in(stage.east(), PORT, &first).await?;
    answers_in(stage.west(), PORT, &second).await?;
    let scale = |replicas: u32| json!({"spec": {"replicas": replicas}});
    stage.west().patch(Kind::Deployment, HELLO, &scale(0)).await?;
    answers_in(stage.west(), PORT, &first).await?;
    stage.west().patch(Kind::Deployment, HELLO, &scale(1)).await?;
    answers_in(stage.west(), PORT, &pod(stage.west()).await?).await
}

/// A derived Service that somebody removes comes back with its address.
pub(crate) async fn x9_an_address_stays(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    let pod = pod(stage.east()).await?;
    stage.export().await?;
    let west = stage.west();
    let has = |import: &Value| {
        ensure!(import["spec"]["ips"][0].is_string(), "no address");
        Ok(())
    };
    let import = imported(west, "has an address", has).await?;
    let derived = import["metadata"]["annotations"]["multicluster.kubernetes.io/derived-service"].as_str();
    let derived = derived.context("it names no derived Service")?;
    let uid = west.get(Kind::Service, derived).await?["metadata"]["uid"].clone();
    answers_in(west, PORT, &pod).await?;
    west.delete(Kind::Service, derived).await?;
    within("it is there again", SOON, async || {
        let again = west.get(Kind::Service, derived).await?;
        ensure!(again["metadata"]["uid"] != uid, "it is there still");
        ensure!(again["spec"]["clusterIPs"] == import["spec"]["ips"], "{}", again["spec"]);
        Ok(())
    })
    .await?;
    answers_in(west, PORT, &pod).await
}
