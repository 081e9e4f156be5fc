//! What the other cluster sees of a cluster whose API server or agent is away.

use super::{PATIENCE, Watchers, World, services, within};
use crate::listener::PROBE;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Each failure with what was seen.
pub(super) async fn run(
    world: &mut World,
    watchers: &mut Watchers,
    away: Duration,
) -> Result<Vec<[String; 2]>> {
    Ok(vec![
        ["the API server of west is away".to_owned(), api_server(world, watchers, away).await?],
        ["the agent of west is killed and started again".to_owned(), exporting_agent(world, watchers).await?],
        ["the agent of east is killed and started again".to_owned(), importing_agent(world, watchers).await?],
    ])
}

async fn api_server(world: &mut World, watchers: &mut Watchers, away: Duration) -> Result<String> {
    eprintln!("the API server of west is away for {} s", away.as_secs());
    watchers.slice.forget();
    world.west.plane.kill_server();
    let killed = Instant::now();
    let mut said = None;
    while killed.elapsed() < away {
        let status = world.west.status().await?;
        if said.is_none() && !status["source"]["unavailable"].is_null() {
            said = Some(killed.elapsed());
        }
        sleep(LOOK).await;
    }
    let told = watchers.slice.so_far();
    ensure!(told.is_empty(), "the slices of east changed: {told:?} endpoints");
    world.west.plane.restart_server().await?;
    let [_, slice, proxy] = again(world, watchers).await?;
    let said = said.map_or("never".to_owned(), |s| format!("after {:.1} s", s.as_secs_f64()));
    Ok(format!(
        "nothing withdrawn in {} s; status says so {said}; the first change after its return at the slice after {:.2} s, \
         at the proxy after {:.2} s (goal 2)",
        away.as_secs(),
        slice.as_secs_f64(),
        proxy.as_secs_f64()
    ))
}

/// The next change, as soon as the API server takes one.
async fn again(world: &mut World, watchers: &mut Watchers) -> Result<[Duration; 3]> {
    // The bare watch beside it may take longer to find its way back than the agents: it is not waited for.
    let count = world.next();
    watchers.proxy.expect(count);
    let start = Instant::now();
    services::change(&world.west.client, PROBE, 1, count).await?;
    let (slice, proxy) = tokio::try_join!(
        within("the EndpointSlices of east", watchers.slice.endpoints(count as usize)),
        within("the proxy", watchers.proxy.came()),
    )?;
    Ok([Duration::ZERO, slice - start, proxy - start])
}

async fn exporting_agent(world: &mut World, watchers: &mut Watchers) -> Result<String> {
    eprintln!("the agent of west is killed");
    watchers.slice.forget();
    world.west.agent.take().context("the agent of west runs")?.kill();
    world.west.start().await?;
    let told = watchers.slice.so_far();
    ensure!(!told.contains(&0), "the endpoints were withdrawn: {told:?} endpoints");
    let [_, slice, proxy] = again(world, watchers).await?;
    Ok(format!(
        "nothing withdrawn; the first change after it said ready at the slice after {:.2} s, at the proxy after {:.2} s \
         (goal 2)",
        slice.as_secs_f64(),
        proxy.as_secs_f64()
    ))
}

async fn importing_agent(world: &mut World, watchers: &mut Watchers) -> Result<String> {
    eprintln!("the agent of east is killed");
    watchers.slice.forget();
    world.east.agent.take().context("the agent of east runs")?.kill();
    let killed = Instant::now();
    world.east.start().await?;
    let ready = killed.elapsed();
    // The proxy's stream ended with the agent: a real proxy goes on with what it has, and comes back; so does this one.
    watchers.proxy = crate::listener::Listener::open(&world.east.listener().await?).await?;
    watchers.proxy.until_known(1, PATIENCE).await?;
    let known = killed.elapsed();
    let told = watchers.slice.so_far();
    ensure!(told.is_empty(), "the slices of east changed: {told:?} endpoints");
    let [_, slice, _] = again(world, watchers).await?;
    Ok(format!(
        "no slice changed; ready {:.2} s after the kill and with everything for a proxy that comes back after {:.2} s; the \
         first change then at the slice after {:.2} s",
        ready.as_secs_f64(),
        known.as_secs_f64(),
        slice.as_secs_f64()
    ))
}
