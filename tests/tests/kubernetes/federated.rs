//! Two Kubernetes API servers, an agent in each, one federation: what one exports is imported by the other.

use super::member::pair;
use super::sink::with_plane;
use anyhow::Result;
use sealane::local::wait::until_true;
use sealane_tests::PATIENCE;
use serde_json::Value;

#[test]
fn a_service_goes_from_cluster_to_cluster_and_back() {
    with_plane("a_service_goes_from_cluster_to_cluster_and_back", async |lab| {
        let (_federation, east, west) = pair(lab).await?;
        west.export("web").await?;
        west.condition("web", "Valid", "NoService").await?;
        west.plane.kubectl(&["delete", "serviceexport/web", "--namespace=shop"]).await?;

        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        west.imports("web", &["10.1.0.1"]).await?;
        east.imports("web", &["10.1.0.1"]).await?;
        let wait =
            ["wait", "--for=condition=Ready", "serviceexport/web", "--namespace=shop", "--timeout=20s"];
        east.plane.kubectl(&wait).await?;
        east.condition("web", "Conflict", "NoConflicts").await?;

        // The own endpoints come first; with none left the others' do.
        west.serve("web", 80, "10.2.0.1").await?;
        west.export("web").await?;
        west.imports("web", &["10.2.0.1"]).await?;
        east.imports("web", &["10.1.0.1"]).await?;
        west.plane.kubectl(&["delete", "endpointslice/web-1", "--namespace=shop"]).await?;
        west.imports("web", &["10.1.0.1"]).await?;
        west.serve("web", 80, "10.2.0.1").await?;
        west.imports("web", &["10.2.0.1"]).await?;

        // Both are told when they disagree, and when they agree again.
        west.serve("web", 81, "10.2.0.1").await?;
        west.plane.kubectl(&["patch", "service/web", "--namespace=shop", "--type=json", "--patch",
            r#"[{"op": "replace", "path": "/spec/ports", "value": [{"name": "http", "port": 81, "protocol": "TCP"}]}]"#]).await?;
        east.condition("web", "Conflict", "PortConflict").await?;
        west.condition("web", "Conflict", "PortConflict").await?;
        west.imports("web", &["10.1.0.1"]).await?;
        west.plane.kubectl(&["delete", "serviceexport/web", "--namespace=shop"]).await?;
        east.condition("web", "Conflict", "NoConflicts").await?;

        east.plane.kubectl(&["delete", "serviceexport/web", "--namespace=shop"]).await?;
        for member in [&east, &west] {
            let what = format!("nothing is left in {}", member.plane.name());
            until_true(&what, PATIENCE, async || Ok(member.ours().await?.is_empty())).await?;
        }
        Ok(())
    });
}

#[test]
fn a_namespace_that_is_absent_gets_nothing_until_it_is_there() {
    with_plane("a_namespace_that_is_absent_gets_nothing_until_it_is_there", async |lab| {
        let (_federation, east, west) = pair(lab).await?;
        west.plane.kubectl(&["delete", "namespace", "shop", "--wait=false"]).await?;
        // Without controllers a namespace does not end by itself.
        let end = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "spec": {"finalizers": []}}"#;
        let file = lab.path().join("end.json");
        std::fs::write(&file, end)?;
        let file = file.to_string_lossy().into_owned();
        west.plane
            .kubectl(&["replace", "--raw", "/api/v1/namespaces/shop/finalize", "--filename", &file])
            .await?;
        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        east.imports("web", &["10.1.0.1"]).await?;
        assert!(west.plane.kubectl(&["get", "namespace", "shop"]).await.is_err());
        west.plane.kubectl(&["create", "namespace", "shop"]).await?;
        west.imports("web", &["10.1.0.1"]).await?;
        Ok(())
    });
}

#[test]
fn an_agent_that_comes_back_finds_everything_as_it_was() {
    with_plane("an_agent_that_comes_back_finds_everything_as_it_was", async |lab| {
        let (mut federation, east, mut west) = pair(lab).await?;
        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        west.imports("web", &["10.1.0.1"]).await?;
        let all = ["get", "serviceimports,services,endpointslices", "--namespace=shop", "--output=json"];
        let items =
            |text: String| -> Result<Value> { Ok(serde_json::from_str::<Value>(&text)?["items"].clone()) };
        let before = items(west.plane.kubectl(&all).await?)?;
        if let Some(agent) = west.agents.remove("a") {
            agent.kill();
        }
        // The store is away, too: the agent serves from its last view, and takes nothing away.
        federation.kill_all();
        west.plane.kill_server();
        west.plane.restart_server().await?;
        west.start("a", None).await?;
        west.imports("web", &["10.1.0.1"]).await?;
        assert_eq!(items(west.plane.kubectl(&all).await?)?, before);
        federation.start_all().await?;
        east.serve("web", 80, "10.1.0.2").await?;
        west.imports("web", &["10.1.0.2"]).await?;
        Ok(())
    });
}

#[test]
fn a_removed_cluster_takes_out_what_it_imported() {
    with_plane("a_removed_cluster_takes_out_what_it_imported", async |lab| {
        let (federation, east, west) = pair(lab).await?;
        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        west.imports("web", &["10.1.0.1"]).await?;
        west.serve("api", 80, "10.2.0.1").await?;
        west.export("api").await?;
        west.condition("api", "Ready", "Exported").await?;
        federation.sealane(&["cluster", "remove", "west"]).await?;
        until_true("nothing is left in west", PATIENCE, async || Ok(west.ours().await?.is_empty())).await?;
        west.condition("api", "Ready", "Failed").await?;
        east.imports("web", &["10.1.0.1"]).await?;
        Ok(())
    });
}

/// A ServiceImport under `shop/web` that no controller made.
const STRANGER: &str = r#"{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"type": "ClusterSetIP", "ports": [{"port": 80, "protocol": "TCP"}]}}"#;

#[test]
fn an_import_of_somebody_else_is_told_where_people_look() {
    with_plane("an_import_of_somebody_else_is_told_where_people_look", async |lab| {
        let (federation, east, west) = pair(lab).await?;
        west.plane.apply(STRANGER).await?;
        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        east.condition("web", "Ready", "Exported").await?;
        let why = "it is not taken over: remove or rename it";
        west.says("what is in the way", "a", |status| {
            status["output"]["troubles"]["shop/web"].as_str().is_some_and(|told| told.ends_with(why))
        })
        .await?;
        let explain = ["explain", "shop/web", "--from", "west"];
        until_true("it is explained", PATIENCE, async || {
            let told = federation.sealane(&explain).await?;
            Ok(told
                .lines()
                .any(|line| line.starts_with("  west: ServiceImport shop/web") && line.ends_with(why)))
        })
        .await?;
        let events = ["get", "events", "--namespace=shop", "--output=jsonpath={.items[*].reason}"];
        until_true("there is an Event", PATIENCE, async || {
            Ok(west.plane.kubectl(&events).await?.contains("ForeignObject"))
        })
        .await?;
        west.plane.kubectl(&["delete", "serviceimport/web", "--namespace=shop"]).await?;
        west.imports("web", &["10.1.0.1"]).await?;
        until_true("it is over", PATIENCE, async || {
            Ok(!federation.sealane(&explain).await?.contains("west: ServiceImport"))
        })
        .await?;
        Ok(())
    });
}

#[test]
fn an_export_whose_name_no_service_can_have_is_not_valid() {
    with_plane("an_export_whose_name_no_service_can_have_is_not_valid", async |lab| {
        let (_federation, east, _west) = pair(lab).await?;
        let long = "a".repeat(64);
        for name in ["my.service", &long] {
            east.export(name).await?;
            east.condition(name, "Valid", "NoService").await?;
            east.condition(name, "Ready", "Pending").await?;
        }
        // One whose name is good is none the worse for them.
        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        east.condition("web", "Ready", "Exported").await?;
        Ok(())
    });
}
