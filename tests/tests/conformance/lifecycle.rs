//! When imports exist, and of which type: rows R1, R2, R10 to R14.

use super::cluster::Kind;
use super::names::name;
use super::objects::{self, HELLO};
use super::stage::{Stage, absent, condition_is, pods};
use super::traffic::request;
use super::wait::{APART, SOON, STILL, in_a_row, throughout, within};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// How often what must not be reached is asked.
const TRIES: u32 = 20;

fn is_of_type(kind: &'static str) -> impl Fn(&Value) -> Result<()> {
    move |import| {
        ensure!(import["spec"]["type"] == kind, "it is of another type");
        Ok(())
    }
}

/// R1: a ServiceImport exists while, and only while, at least one cluster exports the Service.
pub(crate) async fn r1_import_exists_while_a_cluster_exports(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.west().create(&objects::service()).await?;
    stage.export_both().await?;
    stage
        .imported("names both clusters", |import| {
            let clusters = import["status"]["clusters"].as_array().map(Vec::len);
            ensure!(clusters == Some(2), "{}", import["status"]);
            Ok(())
        })
        .await?;
    stage.east().delete(Kind::ServiceExport, HELLO).await?;
    for cluster in &stage.clusters {
        throughout("one cluster exports it, and there is an import", STILL, async || {
            cluster.get(Kind::ServiceImport, HELLO).await.map(drop)
        })
        .await?;
    }
    stage.west().delete(Kind::ServiceExport, HELLO).await?;
    stage.gone().await
}

/// R2: the export of a Service with an address is valid and makes an import of the type ClusterSetIP everywhere.
pub(crate) async fn r2_cluster_ip_is_imported_everywhere(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.export().await?;
    condition_is(stage.east(), "Valid", "True", "Valid").await?;
    stage.imported("is of the type ClusterSetIP", is_of_type("ClusterSetIP")).await?;
    stage.east().delete(Kind::ServiceExport, HELLO).await?;
    stage.gone().await
}

/// R10: the export of a headless Service makes an import of the type Headless everywhere.
pub(crate) async fn r10_headless_is_imported_everywhere(stage: &Stage) -> Result<()> {
    stage.set(&[objects::deployment(1), objects::headless()]).await?;
    stage.export().await?;
    condition_is(stage.east(), "Valid", "True", "Valid").await?;
    stage.imported("is of the type Headless", is_of_type("Headless")).await?;
    stage.east().delete(Kind::ServiceExport, HELLO).await?;
    stage.gone().await
}

/// R11: an import of the type Headless never has an address.
pub(crate) async fn r11_headless_has_no_address(stage: &Stage) -> Result<()> {
    stage.set(&[objects::deployment(1), objects::headless()]).await?;
    stage.export().await?;
    stage.imported("is of the type Headless", is_of_type("Headless")).await?;
    throughout("no address", STILL, async || {
        for cluster in &stage.clusters {
            let import = cluster.get(Kind::ServiceImport, HELLO).await?;
            ensure!(import["spec"]["ips"].as_array().is_none_or(Vec::is_empty), "{}", import["spec"]);
        }
        Ok(())
    })
    .await
}

/// R12: the export of an ExternalName Service is not valid and makes no import.
pub(crate) async fn r12_external_name_is_not_valid(stage: &Stage) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": HELLO},
        "spec": {"type": "ExternalName", "externalName": "example.com"},
    });
    // One that is valid is imported from the same namespace meanwhile.
    let mut other = objects::service();
    other["metadata"]["name"] = json!("other");
    stage.set(&[service, other, objects::export_of("other")]).await?;
    stage.export().await?;
    condition_is(stage.east(), "Valid", "False", "InvalidServiceType").await?;
    throughout("no import", STILL, async || {
        for cluster in &stage.clusters {
            absent(cluster, HELLO).await?;
        }
        Ok(())
    })
    .await?;
    for cluster in &stage.clusters {
        within("the other one is imported", SOON, async || cluster.get(Kind::ServiceImport, "other").await)
            .await?;
    }
    Ok(())
}

/// R13: where one cluster's Service is headless and the older export's is not, both exports are told, and the import
/// keeps its type.
pub(crate) async fn r13_conflicting_headlessness_is_told(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.west().create(&objects::headless()).await?;
    stage.export().await?;
    stage.imported("is of the type ClusterSetIP", is_of_type("ClusterSetIP")).await?;
    tokio::time::sleep(APART).await;
    stage.west().create(&objects::export()).await?;
    stage.both("Conflict", "True", "TypeConflict").await?;
    for cluster in &stage.clusters {
        let import = cluster.get(Kind::ServiceImport, HELLO).await?;
        is_of_type("ClusterSetIP")(&import)?;
    }
    Ok(())
}

/// R14: a Service that is not exported is not reached by its clusterset name. The same request by its local name is
/// answered, before and after, and by its clusterset name once it is exported.
pub(crate) async fn r14_unexported_is_inaccessible(stage: &Stage) -> Result<()> {
    stage.hello().await?;
    stage.west().create(&objects::deployment(1)).await?;
    stage.west().create(&objects::service()).await?;
    let ask = |zone: &str| format!("{}; echo asked", request(&name(stage.east(), zone), objects::PORT));
    let reached = async |zone: &str| {
        for cluster in &stage.clusters {
            in_a_row(&format!("{zone} answers in {}", cluster.name), 1, async || {
                let said = cluster.shell(&ask(zone)).await?;
                ensure!(said.contains("pod ip"), "{said:?}");
                Ok(())
            })
            .await?;
        }
        anyhow::Ok(())
    };
    for cluster in &stage.clusters {
        pods(cluster, 1).await?;
    }
    reached("cluster.local").await?;
    for cluster in &stage.clusters {
        // A try that did not come to its end proves nothing.
        for _ in 0..TRIES {
            let said =
                within("a try ends", SOON, async || cluster.shell(&ask("clusterset.local")).await).await?;
            ensure!(said.trim() == "asked", "it was reached in {}: {said}", cluster.name);
        }
    }
    reached("cluster.local").await?;
    stage.export_both().await?;
    reached("clusterset.local").await
}
