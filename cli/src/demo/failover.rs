//! Local first; another cluster when the local application dies; local again when it is back.

use super::console::Console;
use super::world::{PATIENCE, World};
use crate::local::{Traffic, inspect, wait};
use anyhow::{Context, Result, ensure};
use std::time::Instant;

/// The service `cart` of `east` and `west`, called from `east`.
///
/// # Errors
/// When a claim does not hold.
pub async fn local_first(world: &mut World, console: &mut Console) -> Result<()> {
    console.step("Local first, failover and back: shop/cart, exported by east and west");
    world.east.export("shop", "cart")?;
    world.west.export("shop", "cart")?;
    wait::until_true("east's client has both clusters' cart", PATIENCE, async || {
        let config = inspect::config(world.east.pod("client")?.admin).await?;
        let clusters = config.clusters("shop/cart");
        Ok(clusters.contains("east") && clusters.contains("west"))
    })
    .await?;
    for _ in 0..20 {
        let answer = World::call(&world.east, "cart").await?;
        ensure!(answer.name == "east/cart-1", "{} answered though the local one is up", answer.name);
    }
    console.proved("20 of 20 answers come from east's own pod");
    let traffic = Traffic::start(World::road(&world.east, "cart")?);
    wait::until_true("traffic flows", PATIENCE, async || Ok(traffic.so_far().answered() >= 10)).await?;
    let between = traffic.between().await;
    let killed = Instant::now();
    world.east.pod_mut("cart-1")?.kill_app()?;
    drop(between);
    wait::until_true("west answers", PATIENCE, async || Ok(traffic.so_far().answered_by("west") > 0)).await?;
    let took = killed.elapsed();
    ensure!(world.ended().is_empty(), "more than the application died: {:?}", world.ended());
    console.timed(
        "local application killed, no file touched: the first answer from west",
        "failover to west",
        took,
    );
    back(world, console, traffic).await
}

async fn back(world: &mut World, console: &mut Console, traffic: Traffic) -> Result<()> {
    let start = Instant::now();
    world.east.pod_mut("cart-1")?.start_app().await?;
    let before = traffic.so_far().answered_by("east");
    wait::until_true("east answers again", PATIENCE, async || {
        Ok(traffic.so_far().answered_by("east") > before)
    })
    .await
    .context("after the application was started again")?;
    console.timed(
        "application back: the first answer from east again",
        "back to the local pod",
        start.elapsed(),
    );
    let tally = traffic.stop();
    ensure!(tally.failed == 0, "{} requests failed: {:?}", tally.failed, tally.failures);
    console.proved(&format!("{} requests meanwhile, none failed", tally.answered()));
    console.measure("requests during failover / failed", format!("{} / {}", tally.answered(), tally.failed));
    Ok(())
}
