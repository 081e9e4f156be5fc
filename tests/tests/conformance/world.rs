//! The clusters that the specs run in, and one run of one spec.

use super::cluster::{Cluster, Kind};
use super::stage::Stage;
use anyhow::{Context, Result, anyhow};
use futures::future::LocalBoxFuture;
use sealane_tests::clusters::layout::{Topology, plan};
use sealane_tests::clusters::{self, Environment, Place, Product};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The folder of clusters that run already, with Sealane in them; without it clusters are brought up and taken down.
pub(crate) const RUNNING: &str = "SEALANE_CONFORMANCE";
/// The longest that a spec may take.
const LONGEST: Duration = Duration::from_secs(300);

/// What a spec does on its stage.
pub(crate) type Act = for<'a> fn(&'a Stage) -> LocalBoxFuture<'a, Result<()>>;

/// The clusters.
#[derive(Debug)]
pub(crate) struct World {
    environment: Environment,
    /// What to take down in the end.
    own: Option<(Place, tempfile::TempDir)>,
}

impl World {
    /// Those that run, or new ones.
    pub(crate) fn enter() -> Result<Self> {
        if let Some(folder) = std::env::var_os(RUNNING) {
            let environment = Environment::running(Place::at(folder.as_ref())?)?;
            return Ok(World { environment, own: None });
        }
        let plans = plan(2, Topology::Flat, &["east".to_owned()]).map_err(anyhow::Error::msg)?;
        let folder = tempfile::tempdir().context("no folder for clusters")?;
        let place = Place::at(&folder.path().join("clusters"))?;
        runtime()?.block_on(async {
            let product = Product::of_this_build().await?;
            match Environment::up_with(place.clone(), &plans, &product).await {
                Ok(environment) => Ok(World { environment, own: Some((place, folder)) }),
                Err(error) => {
                    clusters::down(&place).await.with_context(|| format!("after {error:#}"))?;
                    Err(error)
                }
            }
        })
    }

    /// Takes down what was brought up.
    pub(crate) fn leave(self) -> Result<()> {
        match self.own {
            Some((place, _folder)) => runtime()?.block_on(clusters::down(&place)),
            None => Ok(()),
        }
    }

    /// Runs one spec, on a thread of its own that is where the clusters are reached.
    pub(crate) fn run(&self, name: &str, act: Act) -> Result<()> {
        let on_stage = || -> Result<()> {
            self.environment.enter()?;
            runtime()?.block_on(async {
                let run = tokio::time::timeout(LONGEST, self.perform(name, act)).await;
                run.with_context(|| format!("it took longer than {LONGEST:?}"))?
            })
        };
        let result = std::thread::scope(|scope| scope.spawn(on_stage).join());
        result.map_err(|_| anyhow!("it panicked"))?
    }

    async fn perform(&self, name: &str, act: Act) -> Result<()> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let row = name.split('_').next().unwrap_or(name);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("conformance-{row}-{}-{number}", std::process::id());
        let mut clusters = Vec::new();
        for plan in self.environment.plans() {
            clusters.push(Cluster::of(&self.environment, &plan.name).await?);
        }
        let stage = Stage::open(&clusters, &namespace).await?;
        let mut result = act(&stage).await;
        if result.is_err() {
            result = result.context(describe(&stage).await);
        }
        for cluster in &stage.clusters {
            cluster.leave().await?;
        }
        result
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// What is there where a spec failed.
async fn describe(stage: &Stage) -> String {
    let mut text = String::from("where it failed there were:");
    for cluster in &stage.clusters {
        for kind in [Kind::ServiceExport, Kind::ServiceImport, Kind::Service, Kind::EndpointSlice, Kind::Pod]
        {
            let objects = cluster.list(kind, "").await.unwrap_or_default();
            for mut object in objects {
                if let Some(metadata) = object["metadata"].as_object_mut() {
                    metadata.remove("managedFields");
                }
                let (name, kind) = (&object["metadata"]["name"], format!("{kind:?}"));
                let rest = if kind == "Pod" { &object["status"]["podIPs"] } else { &object };
                text.push_str(&format!("\n  {} {kind} {name}: {rest}", cluster.name));
            }
        }
    }
    text
}
