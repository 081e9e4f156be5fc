//! A silent agent withdraws nothing; a dead cluster is withdrawn everywhere.

use super::console::{Console, span};
use super::world::{PATIENCE, World};
use crate::client::{is_live, is_synced};
use crate::local::{Traffic, inspect, wait};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// How long the lease stays lapsed before the demo believes that nothing is withdrawn.
pub const MARGIN: Duration = Duration::from_secs(2);

/// SIGKILL to `west`'s agent alone; its lease stays lapsed for `margin`.
///
/// # Errors
/// When anything is withdrawn, or a request fails.
pub async fn agent_killed(world: &mut World, console: &mut Console, margin: Duration) -> Result<()> {
    console.step("West's agent is killed: its lease lapses, and nothing is withdrawn");
    let traffic = Traffic::start(World::road(&world.east, "echo")?);
    world.west.kill_agent();
    let killed = Instant::now();
    let client = world.federation.client()?;
    let lapsed = wait::until_true("west's lease lapses", PATIENCE, async || {
        Ok(!is_live(&client.cluster("west").await?.cluster))
    })
    .await?;
    console.timed("the lease lapsed", "an agent's silence is noticed", lapsed);
    while killed.elapsed() < lapsed + margin {
        still_there(world).await?;
        tokio::time::sleep(wait::INTERVAL).await;
    }
    let tally = traffic.stop();
    ensure!(tally.failed == 0, "{} requests failed: {:?}", tally.failed, tally.failures);
    console.proved(&format!(
        "{} after the kill east and edge still have west's endpoints, for west's gateway answers their probes",
        span(killed.elapsed())
    ));
    console.proved(&format!("{} requests to west meanwhile, none failed", tally.answered()));
    let start = Instant::now();
    world.west.start_agent().await?;
    wait::until_true("west's lease is live again", PATIENCE, async || {
        Ok(is_synced(&client.cluster("west").await?.cluster))
    })
    .await?;
    console.timed("agent started again, lease live", "an agent is back", start.elapsed());
    Ok(())
}

async fn still_there(world: &World) -> Result<()> {
    let client = world.federation.client()?;
    for site in [&world.east, &world.edge] {
        let chosen = client.chosen_clusters("shop/echo", site.name()).await?;
        ensure!(chosen.contains("west"), "withdrawn from {}", site.name());
        let config = inspect::config(site.pod("client")?.admin).await?;
        ensure!(config.clusters("shop/echo").contains("west"), "withdrawn from a proxy of {}", site.name());
        let written = inspect::written_clusters(&site.out(), "shop", "echo")?;
        ensure!(written.contains("west"), "withdrawn from the EndpointSlices of {}", site.name());
    }
    Ok(())
}

/// SIGKILL to everything of `west`.
///
/// # Errors
/// When its endpoints stay anywhere.
pub async fn cluster_killed(world: &mut World, console: &mut Console) -> Result<()> {
    console.step("All of west is killed: withdrawn everywhere");
    world.west.kill_all();
    let killed = Instant::now();
    let client = world.federation.client()?;
    for site in [&world.east, &world.edge] {
        let (name, admin) = (site.name(), site.pod("client")?.admin);
        wait::until_true(&format!("west is withdrawn from {name}"), PATIENCE, async || {
            let chosen = client.chosen_clusters("shop/echo", name).await?;
            let config = inspect::config(admin).await?;
            Ok(chosen.is_empty()
                && config.clusters("shop/echo").is_empty()
                && !config.clusters("shop/cart").contains("west")
                && inspect::written_clusters(&site.out(), "shop", "echo")?.is_empty())
        })
        .await?;
        console.timed(
            &format!("{name}: no endpoint of west in its view, its EndpointSlices and its proxy"),
            &format!("a dead cluster is withdrawn from {name}"),
            killed.elapsed(),
        );
    }
    let answer = World::call(&world.edge, "cart").await?;
    ensure!(answer.name == "east/cart-1", "{} answered", answer.name);
    console.proved("shop/cart goes on from east, for edge as well");
    Ok(())
}
