//! Three servers and three clusters, each admitted by a single-use token.

use super::console::Console;
use super::world::{PATIENCE, World};
use crate::client::is_synced;
use crate::local::wait;
use crate::local::{Federation, Lab};
use anyhow::{Result, ensure};
use std::time::Instant;

/// Founds the federation and enrols the clusters.
///
/// # Errors
/// When a command fails, or a member is not counted.
pub async fn enrol(lab: &Lab, console: &mut Console) -> Result<World> {
    console.step("Enrolment: every member by a single-use token");
    let start = Instant::now();
    let federation = Federation::of(lab, 3).await?;
    let leader = federation.leader().await?;
    console.timed(
        &format!(
            "3 servers, one founded and two joined; all vote, {} leads",
            federation.servers[leader].name
        ),
        "three servers enrolled and voting",
        start.elapsed(),
    );
    let start = Instant::now();
    let mut world = World::enrol(federation, lab).await?;
    let client = world.federation.client()?;
    wait::until_true("every cluster has a live lease and a synced session", PATIENCE, async || {
        let clusters = client.clusters().await?;
        Ok(clusters.clusters.len() == 3 && clusters.clusters.iter().all(is_synced))
    })
    .await?;
    console.timed(
        "clusters east, west and edge, each with an agent and a gateway",
        "three clusters enrolled",
        start.elapsed(),
    );
    world.west.use_token_again().await?;
    console.proved("west's token is refused when another agent uses it");
    let start = Instant::now();
    world.populate().await?;
    ensure!(world.ended().is_empty(), "ended unasked: {:?}", world.ended());
    console.timed(
        "6 pods, each with a sidecar that got its SVID from its own cluster's CA",
        "six sidecars issued",
        start.elapsed(),
    );
    Ok(world)
}
