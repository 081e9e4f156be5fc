//! Clusters for one test, which are taken down when it ends, whether well or not.

use super::layout::{Plan, Topology, plan};
use super::{Environment, Place, down};
use crate::{alone, skip, tools};
use anyhow::Result;

/// Two clusters on one flat network: `east` with both address families, `west` with IPv4 alone.
///
/// # Panics
/// Never: there are two of that name.
#[must_use]
pub fn two() -> Vec<Plan> {
    plan(2, Topology::Flat, &["east".to_owned()]).expect("two clusters, of which one is named east")
}

/// Runs one test alone, with a place for its clusters. What it brought up there is taken down after it; where it failed,
/// what the pods of Sealane said is printed before. Skipped, loudly, where clusters can not run.
///
/// # Panics
/// When the test fails.
pub fn in_clusters(name: &str, test: impl AsyncFnOnce(Place) -> Result<()>) {
    if !rustix::process::geteuid().is_root() {
        return skip(name, "nodes are made of namespaces, which needs root");
    }
    if let Some(reason) =
        tools::missing(&[&tools::API_SERVER, &tools::KUBELET, &tools::COREDNS, &tools::HELM])
    {
        return skip(name, &reason);
    }
    alone(async || {
        let folder = tempfile::tempdir()?;
        let place = Place::at(&folder.path().join("clusters"))?;
        let result = test(place.clone()).await;
        if result.is_err()
            && let Ok(environment) = Environment::running(place.clone())
        {
            eprintln!("{}", environment.last_words().await);
        }
        let cleared = down(&place).await;
        result.and(cleared)
    });
}
