//! Joining without a secret: an agent proves itself by tokens that its own, real API server issues.

use crate::east::{East, Issuer};
use anyhow::{Context, Result, ensure};
use sealane::local::Lab;
use sealane::local::wait::until_true;
use sealane_tests::control_plane::{ControlPlane, Shape};
use sealane_tests::{PATIENCE, in_lab, skip, tools};
use serde_json::Value;

/// Runs a test where etcd and an API server can be had.
fn with_an_api_server(name: &str, test: impl AsyncFnOnce(&Lab) -> Result<()>) {
    match tools::missing(&[&tools::ETCD, &tools::API_SERVER, &tools::KUBECTL]) {
        Some(reason) => skip(name, &reason),
        None => in_lab(test),
    }
}

/// What the federation says of its clusters.
async fn clusters(east: &East) -> Result<Value> {
    Ok(serde_json::from_str(&east.federation.sealane(&["-o", "json", "clusters"]).await?)?)
}

/// Waits until an agent's log has a text.
async fn says(east: &East, replica: &str, text: &str) -> Result<()> {
    let what = format!("{replica} says {text:?}");
    let said = until_true(&what, PATIENCE, async || {
        let said = east.replica(replica)?.said();
        ensure!(said.contains(text), "it says:\n{said}");
        Ok(true)
    });
    said.await.map(drop)
}

async fn synced(east: &East, replica: &str) -> Result<Value> {
    east.until("the session is synced", replica, |s| s["session"]["synced"] == true).await
}

/// The identity is lost with the pod: what joining brought and where it is kept.
async fn lose_identity(east: &mut East, replica: &str) -> Result<()> {
    let lost = east.replicas.remove(replica).with_context(|| format!("no replica {replica} runs"))?;
    lost.kill();
    east.plane.kubectl(&["delete", "--namespace=sealane-system", "secret/sealane-agent-identity"]).await?;
    Ok(())
}

#[test]
fn a_cluster_joins_by_tokens_of_its_api_server_and_again_when_it_lost_its_identity() {
    with_an_api_server(
        "a_cluster_joins_by_tokens_of_its_api_server_and_again_when_it_lost_its_identity",
        async |lab| {
            let mut east = East::added(lab, Issuer::Stated).await?;
            east.export("v1beta1").await?;
            // The kubelet has not written the token yet.
            east.start("a", None)?;
            says(&east, "a", "can not join yet").await?;
            east.project("sealane-agent", &east.audience()).await?;
            synced(&east, "a").await?;
            let before = clusters(&east).await?;
            let (member, added) = (&before["clusters"][0], &before["added"][0]);
            let of = ["get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}"];
            ensure!(member["uid"] == east.plane.kubectl(&of).await?.as_str(), "{member}");
            ensure!(added["member"] == true && added["last_joined"].is_string(), "{added}");

            // A token that was used is not used by another key, and the next one is.
            lose_identity(&mut east, "a").await?;
            east.start("b", None)?;
            says(&east, "b", "the token was used by another key").await?;
            east.project("sealane-agent", &east.audience()).await?;
            synced(&east, "b").await?;
            let after = clusters(&east).await?;
            ensure!(after["clusters"][0]["id"] == member["id"], "it is another member: {after}");
            ensure!(after["clusters"][0]["exports"] == 1, "{after}");

            // Removed, it stays out until it is added again; then it is another member, by itself.
            east.federation.sealane(&["cluster", "remove", "east"]).await?;
            says(&east, "b", "removed from the federation").await?;
            east.project("sealane-agent", &east.audience()).await?;
            says(&east, "b", "may not join by a token of its issuer").await?;
            east.add().await?;
            says(&east, "b", "this cluster is another member now").await?;
            east.replicas.remove("b");
            east.start("c", None)?;
            synced(&east, "c").await?;
            let again = clusters(&east).await?;
            ensure!(again["clusters"][0]["id"] != member["id"], "{again}");
            Ok(())
        },
    );
}

#[test]
fn tokens_of_a_real_api_server_are_refused_by_what_is_wrong_with_them() {
    with_an_api_server("tokens_of_a_real_api_server_are_refused_by_what_is_wrong_with_them", async |lab| {
        let mut east = East::added(lab, Issuer::Stated).await?;
        let west = ControlPlane::start(lab, Shape::new("west", 2)).await?;
        west.kubectl(&["create", "namespace", "sealane-system"]).await?;
        west.kubectl(&["create", "serviceaccount", "sealane-agent", "--namespace=sealane-system"]).await?;
        east.plane.kubectl(&["create", "serviceaccount", "other", "--namespace=sealane-system"]).await?;
        east.start("a", None)?;
        east.project("sealane-agent", "https://kubernetes.default.svc").await?;
        says(&east, "a", "the token is for the audience").await?;
        east.project("other", &east.audience()).await?;
        says(&east, "a", "the token speaks for \"system:serviceaccount:sealane-system:other\"").await?;
        east.project_of(&west, "sealane-agent", &east.audience()).await?;
        says(&east, "a", "which is none of the issuer's").await?;
        let none = clusters(&east).await?;
        ensure!(none["clusters"] == serde_json::json!([]), "{none}");
        east.project("sealane-agent", &east.audience()).await?;
        synced(&east, "a").await?;
        Ok(())
    });
}

#[test]
fn the_keys_of_a_real_api_server_are_fetched() {
    with_an_api_server("the_keys_of_a_real_api_server_are_fetched", async |lab| {
        let mut east = East::added(lab, Issuer::Fetched).await?;
        east.project("sealane-agent", &east.audience()).await?;
        east.start("a", None)?;
        // Nobody lets strangers look yet.
        says(&east, "a", "can not fetch the keys of the cluster's issuer").await?;
        let role = "--clusterrole=system:service-account-issuer-discovery";
        let group = "--group=system:unauthenticated";
        east.plane.kubectl(&["create", "clusterrolebinding", "issuer", role, group]).await?;
        synced(&east, "a").await?;
        let shown = clusters(&east).await?;
        ensure!(shown["added"][0]["fetched"] == true, "{shown}");
        Ok(())
    });
}

#[test]
fn another_cluster_under_the_same_name_is_refused() {
    with_an_api_server("another_cluster_under_the_same_name_is_refused", async |lab| {
        let mut east = East::with_crds(lab).await?;
        east.started("a").await?;
        synced(&east, "a").await?;
        // A backup of east's namespace is restored in another cluster.
        let secrets = ["get", "secrets", "--namespace=sealane-system", "--output=json"];
        let copied = east.plane.kubectl(&secrets).await?;
        if let Some(agent) = east.replicas.remove("a") {
            agent.kill();
        }
        let uid = ["get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}"];
        let first = east.plane.kubectl(&uid).await?;
        east.plane = ControlPlane::start(lab, Shape::new("copy", 2)).await?;
        let second = east.plane.kubectl(&uid).await?;
        east.plane.kubectl(&["create", "namespace", "sealane-system"]).await?;
        east.plane.apply(&bare(&copied)?).await?;
        east.define(&["v1beta1"]).await?;
        east.start("b", None)?;
        let said = format!(
            "cluster east of the federation is the Kubernetes cluster with the kube-system UID {first}, and this one has {second}"
        );
        says(&east, "b", &said).await?;
        let status = east.until("its status says so", "b", |s| s.to_string().contains(&said)).await?;
        ensure!(status["session"]["synced"] != true, "{status}");
        for way_out in ["sealane cluster remove east", "join under another name"] {
            ensure!(status.to_string().contains(way_out), "{status}");
        }
        Ok(())
    });
}

/// The Secrets without what belongs to the cluster that they come from.
fn bare(list: &str) -> Result<String> {
    let mut list: Value = serde_json::from_str(list)?;
    for item in list["items"].as_array_mut().context("items")? {
        let name = item["metadata"]["name"].clone();
        item["metadata"] = serde_json::json!({"name": name, "namespace": "sealane-system"});
    }
    Ok(list.to_string())
}
