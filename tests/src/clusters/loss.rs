//! A whole cluster is lost: two clusters on one flat network, of which `west` serves and `east` calls.

use super::{Environment, Place, Product, shop, two};
use crate::{PATIENCE, TTL};
use anyhow::{Result, ensure};
use rustix::process::Signal;
use sealane::local::wait::{until, until_true};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long all of a cluster may take to work, or to work again.
const WORKING: Duration = Duration::from_secs(90);

/// Two clusters without gateways, one of which can be lost. The servers of the federation run in `east`.
#[derive(Debug)]
pub struct Losing {
    environment: Environment,
    known: String,
}

impl Losing {
    /// Brings them up; `west` exports `shop/echo`, `east` has its endpoints and an answer of `west`: without one it bears
    /// no witness.
    ///
    /// # Errors
    /// When a part does not work in time.
    pub async fn begin(place: Place, product: &Product) -> Result<Self> {
        let environment = Environment::prepared(place, &two(), product).await?;
        for cluster in ["east", "west"] {
            environment.apply(cluster, &shop(cluster).to_string()).await?;
        }
        // The local endpoints would come first.
        environment.kubectl("east", &["delete", "service/echo", "--namespace=shop"]).await?;
        let export = json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
            "metadata": {"name": "echo", "namespace": "shop"}});
        environment.apply("west", &export.to_string()).await?;
        environment.install(product).await?;
        let found = async || Ok(Some(of_west(&environment).await?).filter(|found| !found.is_empty()));
        let (known, _) = until("east has the endpoints of west", WORKING, found).await?;
        let losing = Losing { environment, known };
        losing.answered().await?;
        Ok(losing)
    }

    /// The clusters.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// How long after this signal to all of west (`STOP`, `KILL`) the last of its endpoints was gone from east.
    ///
    /// # Errors
    /// When it is not withdrawn in time.
    pub async fn withdrawn(&self, signal: Signal) -> Result<Duration> {
        let sent = Instant::now();
        self.environment.signal("west", signal)?;
        until_true("west is withdrawn from east", PATIENCE, async || {
            let found = of_west(&self.environment).await?;
            ensure!(found.is_empty(), "there is {found}");
            Ok(true)
        })
        .await?;
        let took = sent.elapsed();
        self.standing("withdrawn").await?;
        Ok(took)
    }

    /// Lets a stopped west go on, and waits until everything is as it was; how long that took.
    ///
    /// # Errors
    /// When it does not come back in time.
    pub async fn back(&self) -> Result<Duration> {
        let sent = Instant::now();
        self.environment.signal("west", Signal::CONT)?;
        until_true("east has the endpoints of west again", WORKING, async || {
            self.unchanged().await.map(|()| true)
        })
        .await?;
        let took = sent.elapsed();
        self.standing("live").await?;
        self.answered().await?;
        Ok(took)
    }

    /// Refuses when east has other endpoints of west than in the beginning.
    ///
    /// # Errors
    /// With what it has.
    pub async fn unchanged(&self) -> Result<()> {
        let found = of_west(&self.environment).await?;
        ensure!(found == self.known, "east has {found:?} of west, where it had {:?}", self.known);
        Ok(())
    }

    /// The same for three times the life of a lease.
    ///
    /// # Errors
    /// As [`Losing::unchanged`].
    pub async fn stays_unchanged(&self) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < 3 * TTL {
            self.unchanged().await?;
            tokio::time::sleep(TTL / 10).await;
        }
        Ok(())
    }

    /// Waits until the store has this verdict on west.
    ///
    /// # Errors
    /// When it has another one.
    pub async fn standing(&self, wanted: &str) -> Result<()> {
        until_true(&format!("west is {wanted}"), PATIENCE, async || {
            let said = self.environment.sealane("east", &["clusters", "--output=json"]).await?;
            let rows: Value = serde_json::from_str(&said)?;
            let rows = rows["clusters"].as_array().cloned().unwrap_or_default();
            let west = rows.iter().find(|row| row["name"] == "west").cloned().unwrap_or_default();
            ensure!(west["standing"] == wanted, "{west}");
            Ok(true)
        })
        .await
        .map(drop)
    }

    async fn answered(&self) -> Result<()> {
        until_true("the lane to west is up", PATIENCE, async || {
            let said = self.environment.sealane("east", &["clusters", "--output=json"]).await?;
            ensure!(said.contains("\"up\""), "{said}");
            Ok(true)
        })
        .await
        .map(drop)
    }
}

/// The endpoints of west that kube-proxy of east is shown.
async fn of_west(environment: &Environment) -> Result<String> {
    let chosen = "multicluster.kubernetes.io/source-cluster=west,kubernetes.io/service-name";
    let addresses = "--output=jsonpath={.items[*].endpoints[*].addresses[0]}";
    environment.kubectl("east", &["get", "endpointslices", "--namespace=shop", "-l", chosen, addresses]).await
}
