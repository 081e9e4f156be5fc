//! Sealane of one version in the place of another, in the order that the documentation states.

use super::{CLUSTER, CRDS, FEDERATION, Product, values};
use crate::clusters::Environment;
use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::json;

impl Environment {
    /// Upgrades every release to the charts and the image of this product, whose image the nodes have: CRDs, the federation
    /// in the first cluster, the agents; until all is rolled out.
    ///
    /// # Errors
    /// When a part is refused, or does not become ready.
    pub async fn upgrade(&self, product: &Product) -> Result<()> {
        let first = self.plans().next().context("no clusters")?;
        let version = product.version();
        for plan in self.plans() {
            self.release("upgrade", plan, CRDS, &json!({}), product).await?;
        }
        let federation = values::federation(first, product.servers);
        self.release("upgrade", first, FEDERATION, &federation, product).await?;
        self.rolled_out(&first.name, "statefulset/sealane-federation").await?;
        self.say(&first.name, &format!("the servers are of {version}"));
        try_join_all(self.plans().map(async |plan| {
            self.release("upgrade", plan, CLUSTER, &values::cluster(plan), product).await?;
            self.rolled_out(&plan.name, "statefulset/sealane-agent").await?;
            self.say(&plan.name, &format!("the agents are of {version}"));
            anyhow::Ok(())
        }))
        .await?;
        Ok(())
    }

    /// Takes every release back to what it was before the last upgrade, in the opposite order, until all is rolled out.
    ///
    /// # Errors
    /// When a part is refused, or does not become ready.
    pub async fn roll_back(&self) -> Result<()> {
        let first = self.plans().next().context("no clusters")?;
        try_join_all(self.plans().map(async |plan| {
            self.helm(&plan.name, &["rollback", CLUSTER]).await?;
            self.rolled_out(&plan.name, "statefulset/sealane-agent").await?;
            self.say(&plan.name, "the agents are what they were before");
            anyhow::Ok(())
        }))
        .await?;
        self.helm(&first.name, &["rollback", FEDERATION]).await?;
        self.rolled_out(&first.name, "statefulset/sealane-federation").await?;
        self.say(&first.name, "the servers are what they were before");
        for plan in self.plans() {
            self.helm(&plan.name, &["rollback", CRDS]).await?;
        }
        Ok(())
    }
}
