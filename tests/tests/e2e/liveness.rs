//! Who is withdrawn, and who is not.

#[path = "liveness/trio.rs"]
mod trio;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use sealane::client::{is_live, is_synced};
use sealane::demo::console::Console;
use sealane::demo::{enrolment, liveness, world::World};
use sealane::local::{Lab, Process, Site, wait};
use sealane_federation::rest::types::Standing;
use sealane_tests::shim::in_lab_with;
use sealane_tests::{PATIENCE, Pair, TTL, call, in_lab};
use std::path::Path;
use std::time::{Duration, Instant};
use trio::Trio;

#[test]
fn a_dead_agent_withdraws_nothing_and_a_dead_cluster_is_withdrawn() {
    in_lab(async |lab| {
        let console = &mut Console::silent();
        let world = &mut enrolment::enrol(lab, console).await?;
        export_both(world).await?;
        liveness::agent_killed(world, console, 3 * TTL).await?;
        let killed = Instant::now();
        liveness::cluster_killed(world, console).await?;
        ensure!(killed.elapsed() < trio::WITHDRAWN, "withdrawn after {:?}", killed.elapsed());
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

/// West's agent is cut from the servers, and east from west; edge still reaches west. One witness against the other is a
/// tie, so nothing is withdrawn; east avoids west by itself, and edge does not. Then edge is cut off too.
#[test]
fn packets_that_are_dropped_withdraw_a_cluster_only_when_its_witnesses_say_so() {
    in_lab_with("route", "packets_that_are_dropped", async |lab, library| {
        let trio = &mut Trio::new(lab, library).await?;
        trio.to_servers.iter().for_each(|road| road.block(true));
        trio.east_to_west.block(true);
        let client = trio.federation.client()?;
        wait::until_true("west's lease lapses, and east avoids it", PATIENCE, async || {
            let west = client.cluster("west").await?.cluster;
            Ok(!is_live(&west) && trio.tier(&trio.east).await?.as_deref() == Some("avoided"))
        })
        .await?;
        trio.nothing_is_withdrawn(0, &[&trio.edge]).await?;
        let west = client.cluster("west").await?.cluster;
        ensure!(west.standing == Standing::Suspect && !is_live(&west), "{west:?}");
        let tiers = [trio.tier(&trio.east).await?, trio.tier(&trio.edge).await?];
        ensure!(tiers == [Some("avoided".into()), Some("remote".into())], "{tiers:?}");

        trio.edge_to_west.block(true);
        let took = trio.is_withdrawn(0, Instant::now()).await?;
        println!("withdrawn {took:?} after the last witness lost it");
        let roads = trio.to_servers.iter().chain([&trio.east_to_west, &trio.edge_to_west]);
        roads.for_each(|road| road.block(false));
        trio.answered().await?;

        // All of it at one moment.
        let cut = Instant::now();
        let roads = || trio.to_servers.iter().chain([&trio.east_to_west, &trio.edge_to_west]);
        roads().for_each(|road| road.block(true));
        let took = trio.is_withdrawn(0, cut).await?;
        println!("withdrawn {took:?} after every road was cut");
        roads().for_each(|road| road.block(false));
        trio.answered().await?;
        stopped_and_continued(trio).await
    });
}

/// SIGSTOP to everything of west; while it stands still its exports change. SIGCONT brings it back as it is now.
async fn stopped_and_continued(trio: &mut Trio) -> Result<()> {
    trio.west.signal(Signal::STOP)?;
    let stopped = Instant::now();
    trio.west.unexport("shop", "cart")?;
    trio.west.serve("shop", "late", 80)?;
    trio.west.export("shop", "late")?;
    let took = trio.is_withdrawn(0, stopped).await?;
    println!("withdrawn {took:?} after SIGSTOP");
    trio.west.signal(Signal::CONT)?;
    trio.answered().await?;
    let client = trio.federation.client()?;
    // Whatever it had in hand when it was stopped: once its exports are those of now, they stay so.
    let (continued, mut settled) = (Instant::now(), None);
    while settled.is_none_or(|at: Instant| at.elapsed() < TTL) {
        let services = client.services().await?.services;
        let names: Vec<&str> = services.iter().map(|s| s.name.as_str()).collect();
        if names == ["echo", "late"] {
            settled.get_or_insert_with(Instant::now);
        } else {
            ensure!(settled.is_none(), "a stale write: {names:?}");
            ensure!(names == ["cart", "echo"] || names == ["cart", "echo", "late"], "{names:?}");
            ensure!(continued.elapsed() < PATIENCE, "still {names:?}");
        }
        tokio::time::sleep(wait::INTERVAL).await;
    }
    Ok(())
}

/// The leader stands still, so another leads, which grants every lease a full TTL; then all agents stand still, and the
/// servers suspect themselves. Nothing is withdrawn by either. Then west dies indeed.
#[test]
fn a_stopped_leader_and_the_silence_of_all_withdraw_nothing() {
    in_lab_with("route", "a_stopped_leader", async |lab, library| {
        let trio = &mut Trio::new(lab, library).await?;
        let leader = trio.federation.leader().await?;
        let stopped = trio.federation.servers[leader].process.as_ref().context("no process")?;
        let other = (leader + 1) % 3;
        stopped.signal(Signal::STOP)?;
        trio.nothing_is_withdrawn(other, &[&trio.east, &trio.edge]).await?;
        stopped.signal(Signal::CONT)?;
        trio.answered().await?;
        all_fall_silent(trio, other).await?;
        trio.west.kill_all();
        let took = trio.is_withdrawn(other, Instant::now()).await?;
        println!("withdrawn {took:?} after SIGKILL");
        Ok(())
    });
}

async fn all_fall_silent(trio: &Trio, server: usize) -> Result<()> {
    let client = trio.federation.client_of(server)?;
    let signal = |signal| {
        let agents = [&trio.east, &trio.edge, &trio.west].map(|site| site.agent.as_ref());
        agents.into_iter().try_for_each(|agent: Option<&Process>| agent.context("no agent")?.signal(signal))
    };
    signal(Signal::STOP)?;
    wait::until_true("the servers suspect themselves", PATIENCE, async || {
        Ok(client.status().await?.suspected_self)
    })
    .await?;
    trio.nothing_is_withdrawn(server, &[&trio.east, &trio.edge]).await?;
    let clusters = client.clusters().await?.clusters;
    ensure!(clusters.iter().all(is_live), "a lease lapsed: {clusters:?}");
    ensure!(client.status().await?.suspected_self, "the servers no longer suspect themselves");
    signal(Signal::CONT)?;
    wait::until_true("the servers trust themselves again", PATIENCE, async || {
        let clusters = client.clusters().await?.clusters;
        Ok(!client.status().await?.suspected_self && clusters.iter().all(is_synced))
    })
    .await?;
    // Witnesses bear witness again, or west's death would be nobody's to tell.
    trio.answered().await
}

/// An agent is stopped, another one takes its place under the same identity and changes the exports; then the first one
/// goes on, with a change of its own in hand. It is shut out, and writes nothing.
#[test]
fn an_agent_that_was_fenced_while_it_stood_still_writes_nothing() {
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        for service in ["old", "stale", "newer"] {
            pair.west.serve("shop", service, 80)?;
        }
        pair.west.export("shop", "old")?;
        exported(&pair, &["echo", "old"]).await?;
        let first = pair.west.agent.take().context("no agent")?;
        first.signal(Signal::STOP)?;
        let second = take_over(lab, &pair.west).await?;
        exported(&pair, &["echo", "newer"]).await?;
        pair.west.export("shop", "stale")?;
        first.signal(Signal::CONT)?;
        wait::until_true("the first agent is told that it is shut out", PATIENCE, async || {
            Ok(first.said().contains("another agent instance"))
        })
        .await?;
        let told = Instant::now();
        while told.elapsed() < TTL + Duration::from_secs(1) {
            let names = exports(&pair).await?;
            ensure!(names == ["echo", "newer"], "a stale write: {names:?}");
            tokio::time::sleep(wait::INTERVAL).await;
        }
        first.kill();
        ensure!(call(&pair.east, "echo").await?.name == "west/echo-1");
        drop(second);
        Ok(())
    });
}

async fn exports(pair: &Pair) -> Result<Vec<String>> {
    let services = pair.federation.client()?.services().await?.services;
    Ok(services.into_iter().map(|s| s.name).collect())
}

async fn exported(pair: &Pair, names: &[&str]) -> Result<()> {
    wait::until_true(&format!("west exports {names:?}"), PATIENCE, async || {
        let found = exports(pair).await?;
        ensure!(found == names, "{found:?}");
        Ok(true)
    })
    .await?;
    Ok(())
}

/// Another agent of the same cluster, from a copy of its state: it exports `newer`, and `old` no
/// more.
async fn take_over(lab: &Lab, site: &Site) -> Result<Process> {
    let root = lab.directory("second")?;
    for (from, to) in [(site.state(), "state"), (site.root().join("manifests"), "manifests")] {
        copy(&from, &root.join(to))?;
    }
    std::fs::remove_file(root.join("manifests/shop.old.export.yaml"))?;
    let newer = sealane::local::manifests::export("shop", "newer");
    std::fs::write(root.join("manifests/shop.newer.export.yaml"), newer)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let out = lab.directory("second/out")?;
    let arguments = [
        "agent".to_owned(),
        "run".into(),
        "--dir".into(),
        text(&root.join("state")),
        "--manifests".into(),
        text(&root.join("manifests")),
        "--out".into(),
        text(&out),
        "--listen".into(),
        lab.socket(11, 1, 15_000).to_string(),
        "--admin-listen".into(),
        lab.socket(11, 1, 15_100).to_string(),
        "--gateway".into(),
        site.gateway_address().to_string(),
        "--address-range".into(),
        lab.block().range(12),
        "--network".into(),
        site.name().to_owned(),
    ];
    let mut second = lab.launcher().start("west-second-agent", &arguments)?;
    second.ready().await?;
    Ok(second)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
