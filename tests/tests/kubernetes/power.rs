//! A whole cluster of one flat network, without gateways, is lost: the others withdraw it. Its agent alone is not it.

use crate::clusters::{POD, objects};
use anyhow::{Result, ensure};
use rustix::process::Signal;
use sealane::local::wait::until_true;
use sealane_tests::charts::NAMESPACE;
use sealane_tests::clusters::{Environment, Product, in_clusters, two};
use sealane_tests::{PATIENCE, TTL};
use serde_json::json;
use std::time::Instant;

/// The endpoints of west that kube-proxy of east is shown.
async fn of_west(environment: &Environment) -> Result<String> {
    let chosen = "multicluster.kubernetes.io/source-cluster=west,kubernetes.io/service-name";
    let addresses = "--output=jsonpath={.items[*].endpoints[*].addresses[0]}";
    environment.kubectl("east", &["get", "endpointslices", "--namespace=shop", "-l", chosen, addresses]).await
}

#[test]
fn a_cluster_without_a_gateway_that_loses_its_power_is_withdrawn_and_one_without_an_agent_is_not() {
    let name =
        "a_cluster_without_a_gateway_that_loses_its_power_is_withdrawn_and_one_without_an_agent_is_not";
    in_clusters(name, async |place| {
        let product = Product::of_this_build().await?;
        let environment = Environment::prepared(place, &two(), &product).await?;
        for cluster in ["east", "west"] {
            environment.apply(cluster, &objects(cluster).to_string()).await?;
        }
        // The local endpoints would come first.
        environment.kubectl("east", &["delete", "service/echo", "--namespace=shop"]).await?;
        let export = json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
            "metadata": {"name": "echo", "namespace": "shop"}});
        environment.apply("west", &export.to_string()).await?;
        environment.install(&product).await?;
        until_true("east has the endpoints of west", POD, async || {
            let found = of_west(&environment).await?;
            ensure!(!found.is_empty(), "none");
            Ok(true)
        })
        .await?;
        let known = of_west(&environment).await?;
        answered(&environment).await?;

        let agents = ["scale", "statefulset/sealane-agent", "--replicas=0", "--namespace", NAMESPACE];
        environment.kubectl("west", &agents).await?;
        standing(&environment, "suspect").await?;
        let since = Instant::now();
        while since.elapsed() < 3 * TTL {
            ensure!(of_west(&environment).await? == known, "a cluster without an agent was withdrawn");
            tokio::time::sleep(TTL / 10).await;
        }
        let agents = ["scale", "statefulset/sealane-agent", "--replicas=1", "--namespace", NAMESPACE];
        environment.kubectl("west", &agents).await?;
        standing(&environment, "live").await?;

        environment.signal("west", Signal::KILL)?;
        let (lost, mut took) = (Instant::now(), None);
        until_true("west is withdrawn from east", PATIENCE, async || {
            let found = of_west(&environment).await?;
            took = found.is_empty().then(|| lost.elapsed());
            ensure!(found.is_empty(), "there is {found}");
            Ok(true)
        })
        .await?;
        println!("withdrawn after {took:?}");
        standing(&environment, "withdrawn").await
    });
}

/// Waits until the agent of east has an answer from west: without one it bears no witness.
async fn answered(environment: &Environment) -> Result<()> {
    until_true("the lane to west is up", PATIENCE, async || {
        let said = environment.sealane("east", &["clusters", "--output=json"]).await?;
        ensure!(said.contains("\"up\""), "{said}");
        Ok(true)
    })
    .await
    .map(drop)
}

/// Waits until the store has this verdict on west.
async fn standing(environment: &Environment, wanted: &str) -> Result<()> {
    until_true(&format!("west is {wanted}"), PATIENCE, async || {
        let said = environment.sealane("east", &["clusters", "--output=json"]).await?;
        let rows: serde_json::Value = serde_json::from_str(&said)?;
        let rows = rows["clusters"].as_array().cloned().unwrap_or_default();
        let west = rows.iter().find(|row| row["name"] == "west").cloned().unwrap_or_default();
        ensure!(west["standing"] == wanted, "{west}");
        Ok(true)
    })
    .await
    .map(drop)
}
