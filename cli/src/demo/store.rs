//! The store's promises: nothing acknowledged is lost with a leader, and traffic needs no server at all.

use super::console::{Console, span};
use super::world::{PATIENCE, World};
use crate::local::{Federation, Site, Traffic, inspect, wait};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Exports that must be acknowledged before the leader dies, and after.
const BEFORE: usize = 15;
const AFTER: usize = 15;

/// SIGKILL to the leader while `edge` exports one service after another.
///
/// # Errors
/// When an acknowledged export is lost, or exports do not go on.
pub async fn leader_killed(world: &mut World, console: &mut Console) -> Result<()> {
    console.step("The leader is killed (SIGKILL) while exports go on");
    let World { edge, federation, .. } = world;
    let (count, counted) = watch::channel(0);
    // The stream of exports and the killing run side by side: an export is under way when the leader dies.
    let (exported, killed) = tokio::join!(export_all(edge, &count), kill_in_the_middle(federation, counted));
    let ((acknowledged, longest), leader) = (exported?, killed?);
    let name = federation.servers[leader].name.clone();
    console.timed(
        &format!("{name} killed with an export under way; the longest one took"),
        "writes resume after a leader's death",
        longest,
    );
    world.federation.start(leader).await?;
    for at in 0..world.federation.servers.len() {
        holds_all(world, at, &acknowledged).await?;
    }
    console.proved(&format!(
        "{} acknowledged exports, all on every server, {name} restarted included",
        acknowledged.len()
    ));
    console.measure("acknowledged exports / lost", format!("{} / 0", acknowledged.len()));
    Ok(())
}

/// Exports one service after another, and gives their names and how long the slowest took.
async fn export_all(site: &Site, count: &watch::Sender<usize>) -> Result<(Vec<String>, Duration)> {
    let (mut acknowledged, mut longest) = (Vec::new(), Duration::ZERO);
    for number in 0..BEFORE + AFTER {
        let (service, took) = export_one(site, number).await?;
        acknowledged.push(service);
        longest = longest.max(took);
        count.send_replace(acknowledged.len());
    }
    Ok((acknowledged, longest))
}

/// Kills the leader at once when enough exports are acknowledged, and gives which server it was.
async fn kill_in_the_middle(
    federation: &mut Federation,
    mut counted: watch::Receiver<usize>,
) -> Result<usize> {
    counted.wait_for(|count| *count >= BEFORE / 2).await?;
    let leader = federation.leader().await?;
    counted.wait_for(|count| *count >= BEFORE).await?;
    federation.kill(leader);
    Ok(leader)
}

/// Exports one service, and waits until its cluster is told that it is.
async fn export_one(site: &Site, number: usize) -> Result<(String, Duration)> {
    let name = format!("bulk-{number}");
    site.serve("shop", &name, 80)?;
    site.export("shop", &name)?;
    let what = format!("the export of {name} is acknowledged");
    let took =
        wait::until_true(&what, PATIENCE, async || inspect::is_exported(&site.out(), "shop", &name)).await?;
    Ok((format!("shop/{name}"), took))
}

async fn holds_all(world: &World, at: usize, services: &[String]) -> Result<()> {
    let server = &world.federation.servers[at];
    let client = world.federation.client_of(at)?;
    let what = format!("{} has every acknowledged export", server.name);
    wait::until_true(&what, PATIENCE, async || {
        let known = client.services().await?;
        Ok(services
            .iter()
            .all(|s| known.services.iter().any(|k| format!("{}/{}", k.namespace, k.name) == *s)))
    })
    .await?;
    Ok(())
}

/// SIGKILL to all servers while requests cross the clusters.
///
/// # Errors
/// When a request fails, or the servers do not come back as they were.
pub async fn all_servers_down(world: &mut World, console: &mut Console) -> Result<()> {
    console.step("All servers are killed while traffic goes on");
    let before = world.federation.client()?.status().await?.freshness.revision;
    let far = Traffic::start(World::road(&world.east, "echo")?);
    let near = Traffic::start(World::road(&world.edge, "cart")?);
    world.federation.kill_all();
    let down = Instant::now();
    wait::until_true("200 requests are answered without a server", PATIENCE, async || {
        Ok(down.elapsed() > Duration::from_secs(2)
            && far.so_far().answered() + near.so_far().answered() >= 200)
    })
    .await?;
    let lasted = down.elapsed();
    let (far, near) = (far.stop(), near.stop());
    ensure!(far.failed + near.failed == 0, "requests failed: {:?} {:?}", far.failures, near.failures);
    let count = far.answered() + near.answered();
    console.proved(&format!(
        "{count} requests between clusters in {} without any server, none failed",
        span(lasted)
    ));
    console.measure("requests without any server / failed", format!("{count} / 0"));
    let start = Instant::now();
    world.federation.start_all().await?;
    world.federation.leader().await?;
    let after = world.federation.client()?.status().await?.freshness.revision;
    ensure!(inspect::revision(&after)? >= inspect::revision(&before)?, "revision {after} after {before}");
    console.timed(
        &format!("restarted from disk at revision {after} (before: {before})"),
        "three servers back",
        start.elapsed(),
    );
    Ok(())
}
