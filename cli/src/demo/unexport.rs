//! What is no longer exported is refused, also by the pod's own proxy.

use super::console::Console;
use super::world::{PATIENCE, World};
use crate::local::caller::{Caller, Refused};
use crate::local::wait;
use anyhow::{Result, bail, ensure};
use std::time::Instant;

/// `edge` takes `shop/stock` back.
///
/// # Errors
/// When anybody is still served.
pub async fn refused(world: &mut World, console: &mut Console) -> Result<()> {
    console.step("A service is un-exported, and refused");
    let inbound = world.edge.pod("stock-1")?.inbound();
    let sni = "p80.stock.shop.svc.clusterset.local";
    // With east's identity, past every outbound proxy: straight to the pod's own.
    let caller = Caller::enrol(&world.east, "shop", "client").await?;
    let edge = Caller::enrol(&world.edge, "shop", "client").await?.bundle;
    let peer = caller.dial(inbound, sni, &edge).await??;
    ensure!(peer == "spiffe://edge.sealane.local/ns/shop/sa/stock", "{peer} answered");
    console.proved("exported: the pod's proxy admits even a hand-made connection under east's identity");
    world.edge.unexport("shop", "stock")?;
    let start = Instant::now();
    wait::until_true("the pod's proxy refuses east", PATIENCE, async || {
        match caller.dial(inbound, sni, &edge).await? {
            Ok(_) => Ok(false),
            Err(Refused::Alert(_)) => Ok(true),
            Err(Refused::Lost(error)) => bail!("not refused but lost: {error}"),
        }
    })
    .await?;
    console.timed(
        "un-exported: the pod's own proxy refuses the same connection",
        "un-export to refusal",
        start.elapsed(),
    );
    wait::until_true("east's call fails", PATIENCE, async || {
        Ok(World::call(&world.east, "stock").await.is_err())
    })
    .await?;
    console.timed(
        "and east's own proxy knows no such service",
        "un-export reaches the caller",
        start.elapsed(),
    );
    Ok(())
}
