//! Two clusters of one network talk directly; two with the same pod addresses talk by the gateway.

use super::console::Console;
use super::world::{PATIENCE, World};
use crate::local::{Site, inspect, wait};
use anyhow::{Result, ensure};
use std::time::Duration;

/// Requests of which every one must take the same road.
const REQUESTS: u64 = 20;

/// `edge` in `east`'s network, and `west` under `east`'s addresses.
///
/// # Errors
/// When a request takes another road.
pub async fn direct_and_overlapping(world: &mut World, console: &mut Console) -> Result<()> {
    console.step("One network: direct. Overlapping pod addresses: by the gateway");
    world.edge.export("shop", "stock")?;
    let (_, took) = wait::until("east's call to shop/stock is answered", PATIENCE, async || {
        World::call(&world.east, "stock").await.map(Some)
    })
    .await?;
    call_many(&world.east, "stock", "edge/stock-1").await?;
    for site in world.sites() {
        let count = inspect::through_gateway(site.gateway_admin(), "shop/stock").await?;
        ensure!(count == 0, "{count} connections to shop/stock went through {}'s gateway", site.name());
    }
    console.timed(
        "edge exports shop/stock: the first answer in east",
        "export to first answer, one network",
        took,
    );
    console.proved(&format!("{REQUESTS} of {REQUESTS} from east to edge directly: no gateway counted one"));
    overlapping(world, console).await
}

async fn overlapping(world: &World, console: &mut Console) -> Result<()> {
    let (client, echo) = (world.east.pod("client")?.spec.address, world.west.pod("echo-1")?.spec.address);
    ensure!(client == echo, "the pods' addresses do not overlap: {client} and {echo}");
    let before = inspect::through_gateway(world.west.gateway_admin(), "shop/echo").await?;
    call_many(&world.east, "echo", "west/echo-1").await?;
    // A connection is counted when it has ended on both sides.
    wait::until_true("west's gateway counted every request", Duration::from_secs(5), async || {
        let now = inspect::through_gateway(world.west.gateway_admin(), "shop/echo").await?;
        ensure!(now <= before + REQUESTS, "more connections than requests");
        Ok(now == before + REQUESTS)
    })
    .await?;
    console.proved(&format!(
        "east's client and west's echo-1 both have the address {echo}: {REQUESTS} of {REQUESTS} requests arrive, by west's gateway"
    ));
    Ok(())
}

async fn call_many(from: &Site, service: &str, expected: &str) -> Result<()> {
    for _ in 0..REQUESTS {
        let answer = World::call(from, service).await?;
        ensure!(answer.name == expected, "{} answered instead of {expected}", answer.name);
    }
    Ok(())
}
