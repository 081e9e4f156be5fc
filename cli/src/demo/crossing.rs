//! From `west` to `east`: an export becomes callable, both sides know whom they talk to, and nobody between can read.

use super::console::Console;
use super::world::{PATIENCE, World, marker};
use crate::app::Greeting;
use crate::local::{Pod, Relay, Site, http, inspect, wait};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;

/// Requests whose connections are looked at.
const REQUESTS: u64 = 10;

/// `west` exports `shop/echo`; `east` calls it.
///
/// # Errors
/// When no answer arrives, or one that is not of `west`'s pod.
pub async fn export_becomes_callable(world: &mut World, console: &mut Console) -> Result<()> {
    console.step("An export in west becomes callable from east");
    ensure!(World::call(&world.east, "echo").await.is_err(), "shop/echo answered before it was exported");
    console.proved("not exported: east's call is refused");
    world.west.export("shop", "echo")?;
    let (greeting, took) = wait::until("east's call to shop/echo is answered", PATIENCE, async || {
        World::call(&world.east, "echo").await.map(Some)
    })
    .await?;
    ensure!(greeting.name == "west/echo-1", "{} answered", greeting.name);
    console.timed(
        "ServiceExport written in west: the first answer in east, by west/echo-1",
        "export to first answer",
        took,
    );
    Ok(())
}

/// Both proxies wrote down the other's SPIFFE ID, each from the certificates of that very connection.
///
/// # Errors
/// When a record is missing or names another identity.
pub async fn both_identities(world: &mut World, console: &mut Console) -> Result<()> {
    console.step("Both SPIFFE IDs, each from the certificates of that connection");
    for _ in 0..REQUESTS {
        World::call(&world.east, "echo").await?;
    }
    let (client, server) =
        ("spiffe://east.sealane.local/ns/shop/sa/client", "spiffe://west.sealane.local/ns/shop/sa/echo");
    let caller = seen(world.east.pod("client")?, "outbound").await?;
    let called = seen(world.west.pod("echo-1")?, "inbound").await?;
    for (records, local, peer) in [(&caller, client, server), (&called, server, client)] {
        ensure!(
            records.len() as u64 > REQUESTS,
            "{} records of shop/echo for {REQUESTS} requests",
            records.len()
        );
        for record in records {
            ensure!(record.identities() == (Some(local), Some(peer)), "another identity: {record:?}");
        }
    }
    ensure!(caller.iter().all(|r| r.path == "gateway"), "not every connection went by west's gateway");
    console.proved(&format!(
        "east's sidecar ({} connections): I am {client}, the peer is {server}",
        caller.len()
    ));
    console.proved(&format!(
        "west's sidecar ({} connections): I am {server}, the peer is {client}",
        called.len()
    ));
    Ok(())
}

/// The good connections of `shop/echo` in a sidecar's record.
async fn seen(pod: &Pod, direction: &str) -> Result<Vec<inspect::Connection>> {
    let mut records = inspect::connections(pod.admin).await?;
    records.retain(|r| r.direction == direction && r.service.as_deref() == Some("shop/echo"));
    records.retain(|r| r.result == "closed" || r.result == "active");
    Ok(records)
}

/// A random marker crosses; both sides of the gateway are recorded; it is in no byte of either.
///
/// # Errors
/// When the marker is found, or the recorder finds it nowhere though it should.
pub async fn ciphertext_only(world: &mut World, console: &mut Console) -> Result<()> {
    console.step("The gateway carries ciphertext only: every byte on both its sides is recorded");
    let pod = world.west.pod("echo-1")?;
    let before = world.west.gateway_tap.as_ref().context("west's gateway is not tapped")?;
    let behind = pod.tap.as_ref().context("west's pod is not tapped")?;
    let marker = marker()?;
    let road = World::road(&world.east, "echo")?;
    for _ in 0..REQUESTS {
        let greeting: Greeting = http::ask(road, &marker, Duration::from_secs(5)).await?.json()?;
        ensure!(greeting.marker.as_deref() == Some(&marker), "the marker did not come back");
    }
    for (place, relay) in [("before", before), ("behind", behind)] {
        let seen = relay.look_for(marker.as_bytes())?;
        ensure!(!seen.found, "the marker was found {place} west's gateway");
        ensure!(seen.bytes > 10_000, "only {} bytes were recorded {place} west's gateway", seen.bytes);
        console.proved(&format!(
            "{place} the gateway: {} bytes recorded, the request's marker in none",
            seen.bytes
        ));
        console.measure(
            &format!("bytes recorded {place} west's gateway / markers"),
            format!("{} / 0", seen.bytes),
        );
    }
    control(&world.west, pod, &marker).await?;
    console.proved("control: the same recorder finds the marker in one plain request");
    Ok(())
}

/// The recorder is not blind: before the application itself, it finds the marker.
async fn control(site: &Site, pod: &Pod, marker: &str) -> Result<()> {
    let app = SocketAddr::from((pod.spec.address, pod.spec.app.context("the pod has no application")?));
    let relay = Relay::start(SocketAddr::new(site.gateway_listen().ip(), 0), app).await?;
    http::ask(relay.address(), marker, Duration::from_secs(5)).await?;
    ensure!(
        relay.look_for(marker.as_bytes())?.found,
        "the recorder does not find a marker that passed it in clear"
    );
    Ok(())
}
