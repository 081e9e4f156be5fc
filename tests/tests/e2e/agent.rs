//! Agents that start while the servers are away.

use anyhow::{Result, ensure};
use sealane::local::{PodSpec, Traffic, inspect, wait};
use sealane_tests::{PATIENCE, Pair, call, in_lab};

/// The servers are dead; an agent restarts from its disk, and even a new pod gets its identity and its configuration.
#[test]
fn an_agent_restarts_with_the_store_away() {
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        let traffic = Traffic::start(pair.east.pod("client")?.calls("shop/echo:80")?);
        pair.federation.kill_all();
        wait::until_true("the agent has its view on disk", PATIENCE, async || {
            let status = inspect::agent(pair.east.agent_admin()).await?;
            Ok(status["view"]["kept_revision"] == status["view"]["revision"])
        })
        .await?;
        pair.east.kill_agent();
        pair.east.start_agent().await?;
        let late = PodSpec::client("late", "late", lab.address(8, 20), 15_008).calling("echo", 80, 18_001);
        pair.east.start_pod(late).await?;
        let road = pair.east.pod("late")?.calls("shop/echo:80")?;
        let answer: sealane::app::Greeting =
            sealane::local::http::ask(road, "late", PATIENCE).await?.json()?;
        ensure!(answer.name == "west/echo-1", "{answer:?}");
        wait::until_true("traffic goes on", PATIENCE, async || Ok(traffic.so_far().answered() > 50)).await?;
        let tally = traffic.stop();
        ensure!(tally.failed == 0, "{tally:?}");
        reconnects(&mut pair).await
    });
}

async fn reconnects(pair: &mut Pair) -> Result<()> {
    pair.federation.start_all().await?;
    // A change made now arrives: the agents found the servers again by themselves.
    pair.west.unexport("shop", "echo")?;
    wait::until_true("the un-export arrives in east", PATIENCE, async || {
        Ok(call(&pair.east, "echo").await.is_err())
    })
    .await?;
    pair.west.export("shop", "echo")?;
    pair.answered("west/echo-1").await?;
    Ok(())
}

/// A bad manifest changes nothing but itself, and says where it is wrong.
#[test]
fn a_bad_manifest_leaves_the_rest_as_it_was() {
    in_lab(async |lab| {
        let pair = Pair::new(lab, 1).await?;
        let bad = "apiVersion: v1\nkind: Service\nmetadata:\n  name: cart\n  namespace: shop\nspec:\n  ports:\n  - port: lots\n";
        pair.west.apply("shop.bad", bad)?;
        let log = pair.west.agent.as_ref().map(|a| a.log().to_owned()).unwrap_or_default();
        wait::until_true("the agent's log names the file and the field", PATIENCE, async || {
            let said = std::fs::read_to_string(&log)?;
            Ok(said.lines().any(|l| l.contains("shop.bad.yaml") && l.contains("port")))
        })
        .await?;
        for _ in 0..10 {
            ensure!(call(&pair.east, "echo").await?.name == "west/echo-1");
        }
        let config = inspect::config(pair.east.pod("client")?.admin).await?;
        ensure!(config.clusters("shop/echo").contains("west"));
        Ok(())
    });
}
