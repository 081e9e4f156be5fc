//! Who is withdrawn, and who is not.

use anyhow::{Result, ensure};
use sealane::demo::console::Console;
use sealane::demo::{enrolment, liveness, world::World};
use sealane::local::wait;
use sealane_federation::rest::types::Standing;
use sealane_tests::{PATIENCE, TTL, in_lab};

#[test]
fn a_dead_agent_withdraws_nothing_and_a_dead_cluster_is_withdrawn() {
    in_lab(async |lab| {
        let console = &mut Console::silent();
        let world = &mut enrolment::enrol(lab, console).await?;
        export_both(world).await?;
        liveness::agent_killed(world, console, 3 * TTL).await?;
        liveness::cluster_killed(world, console).await?;
        evidence(world).await?;
        comes_back(world).await
    });
}

async fn export_both(world: &World) -> Result<()> {
    world.west.export("shop", "echo")?;
    world.west.export("shop", "cart")?;
    world.east.export("shop", "cart")?;
    for site in [&world.east, &world.edge] {
        wait::until_true("west's echo answers", PATIENCE, async || {
            Ok(World::call(site, "echo").await?.cluster == "west"
                && World::call(site, "cart").await?.cluster == "east")
        })
        .await?;
    }
    Ok(())
}

/// What explain says of the dead cluster: the verdict, and who bore witness.
async fn evidence(world: &World) -> Result<()> {
    let explained = world.federation.client()?.explain("shop/echo", "east").await?;
    let export = explained.exports.iter().find(|e| e.cluster == "west");
    ensure!(
        export.is_some_and(|e| e.standing == Standing::Withdrawn && e.witnesses.len() == 2),
        "{explained:?}"
    );
    Ok(())
}

async fn comes_back(world: &mut World) -> Result<()> {
    world.west.start_agent().await?;
    world.west.start_gateway().await?;
    let mut echo = world.west.pods.remove("echo-1").ok_or_else(|| anyhow::anyhow!("no pod"))?;
    echo.start_app().await?;
    echo.start_sidecar(&world.west).await?;
    echo.start_tap().await?;
    world.west.pods.insert("echo-1".into(), echo);
    for site in [&world.east, &world.edge] {
        wait::until_true("west answers again", PATIENCE, async || {
            Ok(World::call(site, "echo").await?.name == "west/echo-1")
        })
        .await?;
    }
    Ok(())
}
