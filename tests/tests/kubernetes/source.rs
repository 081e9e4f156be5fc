//! The agent reads its cluster from a real API server: what it lacks is named, and what fails takes nothing away.

use crate::east::{East, endpoints, unavailable};
use anyhow::{Result, ensure};
use sealane::local::Lab;
use sealane_tests::{in_lab, skip, tools};
use serde_json::json;
use std::time::{Duration, Instant};

/// How long the API server is away: longer than a lease of the store and than the agent's right to write.
const AWAY: Duration = Duration::from_secs(15);

/// Runs a test where etcd and an API server can be had.
fn with_an_api_server(name: &str, test: impl AsyncFnOnce(&Lab) -> Result<()>) {
    match tools::missing(&[&tools::ETCD, &tools::API_SERVER, &tools::KUBECTL]) {
        Some(reason) => skip(name, &reason),
        None => in_lab(test),
    }
}

/// What the agent may do, but for the resources that are left out.
fn role(without: &[&str]) -> String {
    let read: Vec<&str> = ["namespaces", "nodes", "services", "pods", "endpointslices", "serviceexports"]
        .into_iter()
        .filter(|r| !without.contains(r))
        .collect();
    let rules = json!([
        {"apiGroups": ["", "discovery.k8s.io", "multicluster.x-k8s.io"], "resources": read,
            "verbs": ["list", "watch"]},
        {"apiGroups": ["", "coordination.k8s.io"], "resources": ["secrets", "leases"],
            "verbs": ["get", "create", "update"]},
    ]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "agent"},
            "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "agent"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "agent"}]},
    ]})
    .to_string()
}

/// A role without pods and a cluster without CRDs: both are named, waited for, and picked up when they come.
#[test]
fn what_the_agent_may_not_or_can_not_read_is_named_until_it_can() {
    with_an_api_server("what_the_agent_may_not_or_can_not_read_is_named_until_it_can", async |lab| {
        let mut east = East::new(lab).await?;
        east.plane.apply(&role(&["pods"])).await?;
        let kubeconfig = east.plane.kubeconfig_of("agent", "")?;
        east.start("a", Some(&kubeconfig))?;
        let named = "pods: this agent may not list pods (its role needs list and watch)";
        let absent =
            "serviceexports.multicluster.x-k8s.io: the API server serves neither v1beta1 nor v1alpha1";
        let status = east
            .until("both are named", "a", |s| {
                unavailable(s).contains(named) && unavailable(s).contains(absent)
            })
            .await?;
        ensure!(status["source"]["ready"] == json!(false), "{status}");

        east.plane.apply(&role(&[])).await?;
        east.until("pods are read", "a", |s| !unavailable(s).contains("pods")).await?;
        east.define(&["v1alpha1"]).await?;
        east.export("v1alpha1").await?;
        let status = east.until("the export is read", "a", |s| endpoints(s) == Some(2)).await?;
        ensure!(status["source"] == json!({"ready": true, "unavailable": null, "problems": []}), "{status}");

        east.slices(&[("cart-3", "10.0.0.3")]).await?;
        east.until("a new slice is read", "a", |s| endpoints(s) == Some(3)).await?;
        east.plane.kubectl(&["delete", "--namespace=shop", "endpointslice/cart-3"]).await?;
        east.until("a deleted one is gone", "a", |s| endpoints(s) == Some(2)).await?;
        Ok(())
    });
}

/// The API server is killed and comes back: nothing is deleted and the session goes on. Then it comes back while the
/// agent was frozen and things changed, so that no watch can go on where it was: what differs is found.
#[test]
fn an_api_server_that_is_away_takes_nothing_away() {
    with_an_api_server("an_api_server_that_is_away_takes_nothing_away", async |lab| {
        use rustix::process::Signal;
        let mut east = East::with_crds(lab).await?;
        east.export("v1beta1").await?;
        east.started("a").await?;
        let before =
            east.until("the export is known to the store", "a", |s| s["session"]["synced"] == true).await?;
        ensure!(endpoints(&before) == Some(2), "{before}");

        east.plane.kill_server();
        let killed = Instant::now();
        while killed.elapsed() < AWAY {
            let status = east.status("a").await?;
            ensure!(endpoints(&status) == Some(2), "{status}");
            ensure!(status["session"]["id"] == before["session"]["id"], "{status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        east.until("the outage is named", "a", |s| unavailable(s).contains("services: can not watch"))
            .await?;
        east.plane.restart_server().await?;
        let after = east.until("the outage is over", "a", |s| s["source"]["unavailable"].is_null()).await?;
        ensure!(endpoints(&after) == Some(2), "{after}");
        ensure!(after["session"]["id"] == before["session"]["id"], "{after}");

        east.replica("a")?.signal(Signal::STOP)?;
        east.plane.kubectl(&["delete", "--namespace=shop", "endpointslice/cart-2"]).await?;
        east.slices(&[("cart-3", "10.0.0.3"), ("cart-4", "10.0.0.4")]).await?;
        east.plane.kill_server();
        east.plane.restart_server().await?;
        east.replica("a")?.signal(Signal::CONT)?;
        east.until("what differs is found", "a", |s| endpoints(s) == Some(3)).await?;
        let said = east.replica("a")?.said();
        ensure!(said.contains("the watch expired, listing anew"), "no watch expired:\n{said}");
        Ok(())
    });
}

/// Two replicas share keys and take turns: a frozen holder is replaced, and finds itself replaced when it goes on.
#[test]
fn replicas_share_their_keys_and_one_at_a_time_exports() {
    with_an_api_server("replicas_share_their_keys_and_one_at_a_time_exports", async |lab| {
        use rustix::process::Signal;
        let mut east = East::with_crds(lab).await?;
        east.export("v1beta1").await?;
        east.started("a").await?;
        east.until("a leads", "a", |s| s["lease"]["term"] == 0 && s["session"]["synced"] == true).await?;
        let keys = secrets(&east).await?;
        east.started("b").await?;
        east.until("b follows", "b", |s| held_by(s, "a") && s["session"]["state"] == "never").await?;
        ensure!(keys == secrets(&east).await?, "b wrote over what a keeps");

        east.replica("a")?.signal(Signal::STOP)?;
        east.until("b takes over", "b", |s| s["lease"]["term"] == 1 && s["session"]["synced"] == true)
            .await?;
        east.replica("a")?.signal(Signal::CONT)?;
        let replaced = |s: &serde_json::Value| {
            s["lease"]["term"].is_null() && held_by(s, "b") && s["session"]["state"] == "lost"
        };
        let status = east.until("a finds itself replaced", "a", replaced).await?;
        ensure!(endpoints(&status) == Some(2), "a goes on reading: {status}");

        let b = east.replicas.remove("b").ok_or_else(|| anyhow::anyhow!("b is gone"))?;
        b.terminate().await?;
        let asked = Instant::now();
        east.until("a takes what b gave back", "a", |s| s["lease"]["term"] == 2).await?;
        ensure!(asked.elapsed() < Duration::from_secs(6), "it was not given back");
        east.until("a exports again", "a", |s| s["session"]["synced"] == true).await?;
        Ok(())
    });
}

/// The versions of the agent's Secrets: they change with every write.
async fn secrets(east: &East) -> Result<String> {
    let names = ["secret/sealane-agent-ca", "secret/sealane-agent-identity"];
    let version = "--output=jsonpath={.items[*].metadata.resourceVersion}";
    east.plane.kubectl(&["get", "--namespace=sealane-system", names[0], names[1], version]).await
}

/// Whether a replica's process holds the Lease, by what another one sees of it.
fn held_by(status: &serde_json::Value, replica: &str) -> bool {
    status["lease"]["holder"].as_str().is_some_and(|holder| holder.starts_with(&format!("{replica}_")))
}
